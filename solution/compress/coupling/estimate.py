"""What a net would cost at other sizes, by arithmetic alone: every layer's cost is a product of its axes' lengths."""

from __future__ import annotations

from math import prod

import numpy as np

from solution.compress.coupling.analysis import Analysis
from solution.compress.coupling.macs import layer_macs
from solution.compress.coupling.sizes import Classes


class Estimator:
    """Estimated MACs or parameters for any number of channels per class.

    Numbers need not be whole. Products without a weight (attention) and tensors without channels keep their cost.
    """

    def __init__(self, full: Analysis, classes: Classes, currency: str) -> None:
        """currency: "macs" or "params"."""
        costs = layer_macs(full.traces[0]) if currency == "macs" else _tensor_sizes(full)
        self.sizes, self.of = classes.size, classes.of
        sides = [side for side in full.coupling.sides if side.tensor in costs]
        tensors = {name: row for row, name in enumerate(costs)}
        self.costs = np.array(list(costs.values()), dtype=float)
        self.row = np.array([tensors[side.tensor] for side in sides], dtype=int)
        self.share = np.zeros((len(sides), len(classes.size)))
        for number, side in enumerate(sides):
            np.add.at(self.share[number], classes.of[side.component], 1 / len(side.component))

    def __call__(self, counts: np.ndarray) -> float:
        """counts: (classes,) how many components of each stay."""
        left = np.ones(len(self.costs))
        np.multiply.at(left, self.row, self.share @ (counts / self.sizes))
        return float(left @ self.costs)

    def of_each(self) -> np.ndarray:
        """(components,) what each costs while all others are there."""
        return ((self.costs[self.row] @ self.share) / self.sizes)[self.of]


def _tensor_sizes(full: Analysis) -> dict[str, int]:
    trace = full.traces[0]
    pairs = zip(trace.tensors, trace.shapes, strict=False)
    return {name: prod(shape) for name, shape in pairs if name in trace.parameters}
