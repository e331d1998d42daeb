"""The formats that a weight can have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solution.contracts import InputError


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One format. Integer schemes have levels `low` to `high` times a scale per output channel.

    bits    of one weight, before any entropy coding
    dtype   of the stored weight, for schemes that are floating point
    """

    name: str
    bits: int
    dtype: torch.dtype | None = None

    @property
    def low(self) -> int:
        """The smallest level. Binary weights are -1 and 1, without 0."""
        return -1 if self.bits == 1 else -(2 ** (self.bits - 1))

    @property
    def high(self) -> int:
        """The largest level."""
        return 1 if self.bits == 1 else 2 ** (self.bits - 1) - 1

    def holds(self, numbers: Tensor) -> bool:
        """Whether all of `numbers` stay finite in this format; an integer's scale is a bfloat16."""
        return bool(torch.isfinite(numbers.to(self.dtype or torch.bfloat16)).all())


HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SCHEMES: dict[str, Scheme] = {
    **{name: Scheme(name=name, bits=16, dtype=dtype) for name, dtype in HALVES.items()},
    **{f"int{bits}": Scheme(name=f"int{bits}", bits=bits) for bits in range(8, 1, -1)},
    "binary": Scheme(name="binary", bits=1),
}


def scheme_called(name: str) -> Scheme:
    """The scheme of this name. `InputError` that lists the names when there is none."""
    if name not in SCHEMES:
        raise InputError(f"there is no scheme {name!r}; there are {', '.join(SCHEMES)}")
    return SCHEMES[name]
