"""The formats that a weight can have, and the grids of the integer ones: one step per output channel.

A step is chosen so that rounding moves the weights least. Steps are rounded to bfloat16 before anything is rounded to
the grid: that costs no accuracy, halves their bytes, and an 8-bit integer times an 8-bit mantissa is exact in float32,
so stored codes give back the very weights that trained.

And the range of a layer's inputs, from calibration images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from solution.compress.layers import along
from solution.contracts import InputError
from solution.graph import images_for, modules_at, observe

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


Range = tuple[float, float]

BINS = 2048
PERCENTILE = 99.99
_SHARES = np.linspace(1.0, 0.2, 81)


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Counts of values in equal bins from `low` to `high`; 0 lies within."""

    counts: np.ndarray
    low: float
    high: float

    @property
    def centers(self) -> np.ndarray:
        """(bins,) the middle of each bin."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[:-1] + edges[1:]) / 2


def minmax(histogram: Histogram, bits: int) -> Range:
    """All that was seen."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, bits: int) -> Range:
    """Without the most extreme `100 - PERCENTILE` percent, half of them at each end that is not 0."""
    ends = (histogram.low < 0) + (histogram.high > 0)
    tail = (100 - PERCENTILE) / 100 / max(ends, 1)
    share = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1)
    low, high = np.interp([tail, 1 - tail], share, histogram.centers)
    return min(float(low), 0.0) if histogram.low < 0 else 0.0, max(float(high), 0.0) if histogram.high > 0 else 0.0


def mse(histogram: Histogram, bits: int) -> Range:
    """The range with the least squared rounding error."""

    def error(low: float, high: float) -> float:
        return float((histogram.counts * (_rounded(histogram.centers, low, high, bits) - histogram.centers) ** 2).sum())

    return _best(histogram, error)


def entropy(histogram: Histogram, bits: int) -> Range:
    """The range whose histogram, read through the grid, keeps most information.

    Zeros, of which ReLU makes many, are exact on every grid: they do not count.
    """
    counts, width = histogram.counts.copy(), max(histogram.high - histogram.low, 1e-12) / len(histogram.counts)
    counts[min(int(-histogram.low / width), len(counts) - 1)] = 0

    def divergence(low: float, high: float) -> float:
        inside = (histogram.centers >= low) & (histogram.centers <= high)
        seen, centers = counts[inside], histogram.centers[inside]
        if not seen.sum():
            return np.inf
        true = seen.copy()
        true[0] += counts[histogram.centers < low].sum()
        true[-1] += counts[histogram.centers > high].sum()
        return _divergence(true, _spread(seen, centers, low, high, bits))

    return _best(histogram, divergence)


OBSERVERS: dict[str, Callable[[Histogram, int], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


DYNAMIC = "dynamic"
"""Called in place of an observer: nothing is observed, each image brings its own range."""


def _best(histogram: Histogram, cost: Callable[[float, float], float]) -> Range:
    """The share of the full range with the least cost."""
    costs = [cost(histogram.low * share, histogram.high * share) for share in _SHARES]
    share = float(_SHARES[int(np.argmin(costs))])
    return histogram.low * share, histogram.high * share


def _rounded(values: np.ndarray, low: float, high: float, bits: int) -> np.ndarray:
    step = max(high - low, 1e-12) / (2**bits - 1)
    zero = np.round(-low / step)
    return (np.clip(np.round(values / step), -zero, 2**bits - 1 - zero)) * step


def _spread(counts: np.ndarray, centers: np.ndarray, low: float, high: float, bits: int) -> np.ndarray:
    """Counts of bins that share a level, spread evenly over those of them that are not empty."""
    level = np.unique(_rounded(centers, low, high, bits), return_inverse=True)[1]
    filled = counts > 0
    total, number = np.bincount(level, counts), np.bincount(level, filled)
    return np.where(filled, total[level] / np.maximum(number[level], 1), 0.0)


def _divergence(true: np.ndarray, seen: np.ndarray) -> float:
    """Kullback-Leibler divergence in nats; a little is added everywhere so that it stays finite."""
    p, q = (values / values.sum() + 1e-9 for values in (true, seen))
    return float((p * np.log(p / q)).sum())


def histograms(model: nn.Module, paths: Iterable[str], batches: list[Tensor]) -> dict[str, Histogram]:
    """The inputs of each layer of `paths` when `model` runs on `batches`. Two passes: extremes, then counts."""
    paths = tuple(paths)
    ends = {path: [0.0, 0.0] for path in paths}

    def widen(path: str, x: Tensor) -> None:
        ends[path] = [min(ends[path][0], float(x.min())), max(ends[path][1], float(x.max()))]

    _run(model, paths, batches, widen)
    counts = {path: np.zeros(BINS) for path in paths}

    def count(path: str, x: Tensor) -> None:
        low, high = ends[path]
        if high > low:
            counts[path] += torch.histc(x.float(), BINS, low, high).cpu().numpy()

    _run(model, paths, batches, count)
    return {path: Histogram(counts=counts[path], low=ends[path][0], high=ends[path][1]) for path in paths}


def _run(model: nn.Module, paths: Iterable[str], batches: list[Tensor], see: Callable[[str, Tensor], None]) -> None:
    with (
        observe(modules_at(model, paths), before=lambda path, _, inputs, named: see(path, inputs[0])),
        torch.inference_mode(),
    ):
        for images in batches:
            model(images_for(model, images))


def ranges(model: nn.Module, paths: Iterable[str], batches: list[Tensor], observer: str, bits: int) -> dict[str, Range]:
    """{layer: the range of its inputs by `observer`}, to six digits."""
    seen = histograms(model.eval(), paths, batches)
    found = {path: OBSERVERS[observer](histogram, bits) for path, histogram in seen.items()}
    return {path: (float(f"{low:.6g}"), float(f"{high:.6g}")) for path, (low, high) in found.items()}
