"""The step of a grid: one per output channel, chosen so that rounding moves the weights least.

Steps are rounded to bfloat16 before anything is rounded to the grid: that costs no accuracy, halves their bytes, and
an 8-bit integer times an 8-bit mantissa is exact in float32, so stored codes give back the very weights that trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solution.compress.quantization.schemes import Scheme

TINY = 1e-30
_CANDIDATES = 24
_MOST = 1024
_NARROWEST = {8: 0.7, 7: 0.6, 6: 0.5, 5: 0.4, 4: 0.3, 3: 0.2, 2: 0.1}
"""The smallest share of the widest step that is tried, by bits: the fewer levels, the more it pays to cut extremes."""


def stored(scale: Tensor) -> Tensor:
    """`scale` as it will be kept: rounded to bfloat16, and never 0."""
    return scale.abs().clamp_min(TINY).bfloat16().to(scale.dtype)


def along(values: Tensor, axis: int, dims: int) -> Tensor:
    """(C,) to a shape that multiplies channel `axis` of a tensor with `dims` dimensions."""
    shape = [1] * dims
    shape[axis] = -1
    return values.view(shape)


def rows(weight: Tensor, axis: int) -> Tensor:
    """(channels, weights of one channel)."""
    return weight.detach().movedim(axis, 0).flatten(1)


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
    """The nearest levels of `weight` on the grid with step `scale` (C,): small integers, still in floating point."""
    steps = along(scale, axis, weight.dim())
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
    return levels(weight, scale, scheme, axis) * along(scale, axis, weight.dim())
