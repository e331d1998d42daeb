"""From "this much" to "so many channels in each atom", and what that would cost.

Targets follow from a uniform share or from one threshold over all layers. What other sizes would cost is estimated by
arithmetic: every layer's cost is a product of its axes' lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from math import prod

import numpy as np

from solution.compress.coupling.analysis import Analysis
from solution.compress.coupling.components import NO_COMPONENT, Coupling
from solution.compress.coupling.costs import layer_macs
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
            self.share[number] = np.bincount(classes.of[side.component], minlength=len(classes.size))
            self.share[number] /= len(side.component)

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


Targets = dict[int, int]
"""Atom -> how many of its components are to stay."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The atoms that may shrink: how many components each has, how few it may come down to, which number it steps in.

    share  (atoms,) -> real-valued fraction of an atom's removable components that stay, for a pressure in [0, 1]
    """

    size: dict[int, int]
    least: dict[int, int]
    multiple: dict[int, int]
    share: Callable[[float], dict[int, float]]

    def exact(self, ratio: float) -> dict[int, float]:
        """Atom -> how many components would stay, not yet whole, but within bounds."""
        return {
            atom: max(float(self.least[atom]), self.size[atom] * share) for atom, share in self.share(ratio).items()
        }

    def whole(self, ratio: float) -> Targets:
        """The same, rounded to the nearest multiple that may be had."""
        return {atom: self._stepped(atom, number) for atom, number in self.exact(ratio).items()}

    def _stepped(self, atom: int, number: float) -> int:
        step, least, size = self.multiple[atom], self.least[atom], self.size[atom]
        stepped = max(step, round(number / step) * step)
        return min(size, stepped if stepped >= least else -(-least // step) * step)

    def lowest(self) -> Targets:
        """As few as may be."""
        return {atom: self._stepped(atom, least) for atom, least in self.least.items()}


def bounds_of(
    coupling: Coupling, classes: Classes, limits: Mapping[str, float], round_to: int, score: np.ndarray | None
) -> Bounds:
    """What may shrink and how: with a `score` (components,) by one threshold over all layers, else in equal shares.

    limits  glob pattern of layers -> the largest fraction of their channels that may go
    """
    sizes, kept = classes.atom_sizes(), coupling.kept()
    free = [int(atom) for atom in np.unique(coupling.atom[~kept]) if atom != NO_COMPONENT]
    most = _most(coupling, limits)
    fixed = {atom: int((kept & (coupling.atom == atom)).sum()) for atom in free}
    least = {a: max(1, fixed[a], int(np.ceil(sizes[a] * (1 - most.get(a, 1.0)) - 1e-9))) for a in free}
    return Bounds(
        size={atom: sizes[atom] for atom in free},
        least=least,
        multiple={atom: round_to if sizes[atom] >= round_to else 1 for atom in free},
        share=(lambda ratio: dict.fromkeys(free, 1 - ratio)) if score is None else _threshold(coupling, free, score),
    )


def _most(coupling: Coupling, limits: Mapping[str, float]) -> dict[int, float]:
    most: dict[int, float] = {}
    for side in coupling.sides:
        layer = side.tensor.rpartition(".")[0]
        fits = [fraction for pattern, fraction in limits.items() if fnmatch(layer, pattern)]
        if side.role == "out" and fits:
            for atom in np.unique(coupling.atom[side.component]).tolist():
                most[atom] = min([most.get(atom, 1.0), *fits])
    return most


def _threshold(coupling: Coupling, free: list[int], score: np.ndarray) -> Callable[[float], dict[int, float]]:
    kept = coupling.kept()
    everything = np.sort(score[~kept & np.isin(coupling.atom, free)])
    members = {atom: np.where(kept[coupling.atom == atom], np.inf, score[coupling.atom == atom]) for atom in free}

    def share(ratio: float) -> dict[int, float]:
        place = min(len(everything) - 1, int(ratio * len(everything)))
        return {atom: float((scores >= everything[place]).mean()) for atom, scores in members.items()}

    return share


class Spread:
    """From numbers of atoms to real-valued numbers (classes,): each atom's are shared in proportion."""

    def __init__(self, classes: Classes) -> None:
        self.size = classes.size.astype(float)
        _, self.atom = np.unique(classes.atom, return_inverse=True)
        self.place = {int(atom): place for place, atom in enumerate(np.unique(classes.atom))}
        self.fixed = np.bincount(self.atom, np.where(classes.kept, classes.size, 0))
        self.free = np.bincount(self.atom, np.where(classes.kept, 0, classes.size))
        self.kept = classes.kept

    def __call__(self, targets: Targets) -> np.ndarray:
        """(classes,) for atom -> how many of its components are to stay; atoms that are not named stay whole."""
        share = np.ones(len(self.fixed))
        for atom, number in targets.items():
            place = self.place[atom]
            if self.free[place]:
                share[place] = max(0.0, number - self.fixed[place]) / self.free[place]
        return np.where(self.kept, self.size, self.size * share[self.atom])


BISECTIONS = 24


def largest_within(aim: float, bounds: Bounds, estimate: Callable[[Targets], float]) -> Targets:
    """The numbers under the least pressure whose estimate is at most `aim`, then single steps more while any fits."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if estimate(bounds.whole(middle)) <= aim else (middle, high)
    targets, exact = bounds.whole(high), bounds.exact(high)
    fitted = True
    while fitted:
        fitted = False
        for atom in sorted(targets, key=lambda atom: targets[atom] - exact[atom]):
            more = {**targets, atom: min(bounds.size[atom], targets[atom] + bounds.multiple[atom])}
            if more != targets and estimate(more) <= aim:
                targets, fitted = more, True
    return targets
