"""`Goal`: what a smaller net may lose, what it may cost, where it runs, and how long the search may take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from solution.budget import Budget
from solution.contracts import InputError
from solution.evaluate.cost import macs, params
from solution.export.runtimes import EAGER, EXPORTING
from solution.graph.observe import observe
from solution.graph.running import as_judged, one_for, run

LIMITS = {"macs": "macs", "latency": "ms", "size": "bytes", "ram": "bytes"}
"""{limit of a `Goal`: what it counts, as `Budget` calls it}."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted. A limit is a `Budget`: "30%" of what the net costs as it came, or a number with a unit.

    max_drop  most that quality may fall, in points of 100
    macs      multiply-accumulates of one image
    latency   median time of one image in the runtime, one thread
    size      bytes of the exported file
    ram       bytes that the largest layer's inputs and outputs take in the exported precision
    runtime   where the net will run; "packed" is this project's own file, weights in 4 or 8 bits, in PyTorch;
              "eager" is a checkpoint in PyTorch
    hours     wall time of everything; None: `passes` decide, so that the same call gives the same net
    passes    training effort in passes of the whole net over the training pictures, when `hours` is None
    """

    max_drop: float = 1.0
    macs: str | int | None = None
    latency: str | int | None = None
    size: str | int | None = None
    ram: str | int | None = None
    runtime: str = "onnxruntime"
    hours: float | None = None
    passes: float = 20.0

    def __post_init__(self) -> None:
        for name, kind in LIMITS.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, str(Budget.of(value, kind, name)))
        if not 0 <= self.max_drop < 100:
            raise InputError(f"max_drop is in points of 100, at least 0 and below 100, got {self.max_drop}")
        if self.hours is not None and not 0 < self.hours < math.inf:
            raise InputError(f"hours must be above 0, got {self.hours}")
        if not 0 < self.passes < math.inf:
            raise InputError(f"passes must be above 0, got {self.passes}")
        if self.runtime not in (known := (*EXPORTING, "packed", EAGER)):
            raise InputError(f"for is one of {', '.join(known)}, got {self.runtime!r}")

    def limits(self, before: Mapping[str, float]) -> dict[str, float]:
        """{limit: its number in the base unit}, for a net that costs `before` now."""
        named = {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}
        return {name: Budget.of(value, LIMITS[name], name).limit(before[name]) for name, value in named.items()}


def costs_of(net: nn.Module, example: Any) -> dict[str, float]:
    """{"macs", "params", "held"}: the last is how many numbers one layer at most reads and writes for one image."""
    largest = 0

    def note(_path: str, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(part.numel() for part in (*inputs, output) if isinstance(part, Tensor)))

    leaves = {path: module for path, module in net.named_modules() if not any(module.children())}
    with as_judged(net), observe(leaves, after=note):
        run(net, one_for(net, example))
    return {"macs": macs(net, example), "params": params(net), "held": largest}
