"""The range of a layer's inputs, from calibration images.

The inputs of every layer are counted in a histogram; an observer makes a range of it. Percentile cuts rare extremes;
"mse" takes the range with the least squared rounding error; "entropy" the one whose rounded histogram differs least
from the true one (Kullback-Leibler, after Migacz, 2017, "8-bit inference with TensorRT").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from solution.graph.observe import modules_at, observe
from solution.graph.running import images_for

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
