"""`Goal`: what a smaller net may lose, what it may cost, where it runs, and how long the search may take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from solution.budget import Budget
from solution.contracts import InputError
from solution.evaluate.cost import macs, params
from solution.evaluate.ram import memory
from solution.export.runtimes import EAGER, EXPORTING

LIMITS = {"macs": "macs", "latency": "ms", "size": "bytes", "ram": "bytes"}
"""{limit of a `Goal`: what it counts, as `Budget` calls it}."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted. A limit is a `Budget`: "30%" of what the net costs as it came, or a number with a unit.

    max_drop  most that quality may fall, in points of 100
    macs      multiply-accumulates of one image
    latency   median time of one image in the runtime, one thread
    size      bytes of the exported file
    ram       bytes that activations take at once in the exported precision (`evaluate.ram`)
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

    @property
    def limited(self) -> bool:
        """Whether anything is limited besides the drop."""
        return any(getattr(self, name) is not None for name in LIMITS)

    def limits(self, before: Mapping[str, float]) -> dict[str, float]:
        """{limit: its number in the base unit}, for a net that costs `before` now."""
        named = {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}
        return {name: Budget.of(value, LIMITS[name], name).limit(before[name]) for name, value in named.items()}


def costs_of(net: nn.Module, example: Any) -> dict[str, float]:
    """{"macs", "params", "ram_int8", "ram_float"}: RAM is the most bytes that activations of one image take at once."""
    held = memory(net, example)
    return {"macs": macs(net, example), "params": params(net), "ram_int8": held.int8, "ram_float": held.float}


def ram_of(costs: Mapping[str, float], precision: str) -> float:
    """Bytes of activations in a file of this precision: where weights alone are small, activations are floats."""
    return costs["ram_int8" if precision == "int8" else "ram_float"]
