"""The formats that a weight can have, and the grids of the integer ones: one step per output channel.

A step is chosen so that rounding moves the weights least. Steps are rounded to bfloat16 before anything is rounded to
the grid: that costs no accuracy, halves their bytes, and an 8-bit integer times an 8-bit mantissa is exact in float32,
so stored codes give back the very weights that trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solution.compress.layers import along
from solution.contracts import InputError

_TINY = 1e-30
_CANDIDATES = 24
_MOST = 1024
_NARROWEST = {8: 0.7, 7: 0.6, 6: 0.5, 5: 0.4, 4: 0.3, 3: 0.2, 2: 0.1}
"""The smallest share of the widest step that is tried, by bits: the fewer levels, the more it pays to cut extremes."""


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


def stored(scale: Tensor) -> Tensor:
    """`scale` as it will be kept: rounded to bfloat16, and never 0."""
    return scale.abs().clamp_min(_TINY).bfloat16().to(scale.dtype)


def rows(weight: Tensor, axis: int) -> Tensor:
    """(channels, weights of one channel), in float32 at least: steps of half precision would be too coarse."""
    values = weight.detach().movedim(axis, 0).flatten(1)
    return values if values.dtype is torch.float64 else values.float()


def grid_scale(weight: Tensor, scheme: Scheme, axis: int) -> Tensor:
    """(C,) the step of each output channel's grid: of many, the one with the least squared rounding error.

    Long channels are judged by `_MOST` of their weights: a net of millions is rebuilt in seconds.
    """
    values = rows(weight, axis)  # (C, weights of one channel)
    if scheme.bits == 1:
        return binary_scale(values)
    widest = values.abs().amax(1) / scheme.high
    seen = values[:, :: -(-values.shape[1] // _MOST)]
    best, least = stored(widest), torch.full_like(widest, torch.inf)
    for share in torch.linspace(_NARROWEST[scheme.bits], 1.0, _CANDIDATES).tolist():
        scale = stored(widest * share)
        rounded = (seen / scale[:, None]).round().clamp(scheme.low, scheme.high) * scale[:, None]
        error = (rounded - seen).square().sum(1)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best


def binary_scale(values: Tensor) -> Tensor:
    """(C,) mean magnitude of each row: the best factor for its signs (Rastegari et al., 2016, arXiv:1603.05279)."""
    return stored(values.abs().mean(1))


def levels(weight: Tensor, scale: Tensor, scheme: Scheme, axis: int) -> Tensor:
    """The nearest levels of `weight` on the grid with step `scale` (C,): small integers, in float32 or float64."""
    weight = weight if weight.dtype is torch.float64 else weight.float()
    steps = along(scale.to(weight.dtype), axis, weight.dim())
    if scheme.bits == 1:
        return torch.where(weight * steps.sign() < 0, -1.0, 1.0)
    # A folded norm can make a step 0: all weights of that channel are then 0.
    scaled = torch.where(steps == 0, 0.0, weight / torch.where(steps == 0, 1.0, steps))
    return scaled.round().clamp(scheme.low, scheme.high)


def on_grid(weight: Tensor, scheme: Scheme, axis: int) -> Tensor:
    """`weight` rounded to its best grid, or through half precision: what the scheme makes of it."""
    if scheme.dtype is not None:
        return weight.to(scheme.dtype).to(weight.dtype)
    scale = grid_scale(weight, scheme, axis)
    return (levels(weight, scale, scheme, axis) * along(scale, axis, weight.dim())).to(weight.dtype)
