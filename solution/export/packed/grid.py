"""Rows of numbers that are a small integer times the row's scale: what uniform quantizers leave behind.

A quantizer's weights are q * s in float32, with |q| <= 127 and one s a row (or one for all). The scales are found from
the numbers alone. Whatever order of operations made them, the last bit or two may differ from q * s: such residuals
are kept, so that the numbers come back bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MOST = 127
_MOST_RESIDUAL = 3
_LEEWAY = 0.02
"""How far from an integer a magnitude may lie, in scales, before the scale is adjusted to all of them."""
_NEGATIVE_ZERO = 0
"""Code of -0.0, which rounding makes of small negative numbers; other codes are q + 128."""
_USUAL_TOPS = (127, 128, 7, 8, 3, 1)
"""What the largest |q| of a row usually is, at 8, 4, 3 and 1 bits."""
_WHOLE = np.arange(-128, 128).astype(np.float32)
_WHOLE[_NEGATIVE_ZERO] = -0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """codes (R, N) uint8, scales (R,) float32, residuals (R, N) int8 in units of the last bit, None for none."""

    codes: np.ndarray
    scales: np.ndarray
    residuals: np.ndarray | None

    def values(self) -> np.ndarray:
        """(R, N) float32: the numbers again."""
        values = _WHOLE[self.codes]
        values *= self.scales[:, None]
        if self.residuals is not None:
            values.view(np.int32)[...] += self.residuals
        return values


def find(values: np.ndarray) -> Grid | None:
    """The grid of (R, N) float32 `values`, or None when a row is on no grid."""
    if not np.isfinite(values).all():
        return None
    scales = np.empty(len(values), dtype=np.float32)
    for index, row in enumerate(values):
        scale = _scale(np.unique(np.abs(row[row != 0])).astype(np.float64))
        if scale is None:
            return None
        scales[index] = scale
    return _on_grid(values, scales)


def _on_grid(values: np.ndarray, scales: np.ndarray) -> Grid | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = np.nan_to_num(np.rint(values / scales[:, None]))
    if np.abs(whole).max(initial=0) > _MOST:
        return None
    codes = (whole + 128).astype(np.uint8)
    codes[(values == 0) & np.signbit(values)] = _NEGATIVE_ZERO
    plain = Grid(codes=codes, scales=scales, residuals=None)
    residuals = values.view(np.int32).astype(np.int64) - plain.values().view(np.int32)
    if not residuals.any():
        return plain
    if np.abs(residuals).max() > _MOST_RESIDUAL:
        return None
    return Grid(codes=codes, scales=scales, residuals=residuals.astype(np.int8))


def _scale(sizes: np.ndarray) -> float | None:
    """The scale of distinct, ascending magnitudes (K,) float64: the one with the fewest residuals."""
    if len(sizes) == 0:
        return 0.0
    if len(sizes) > _MOST:
        return None
    best: tuple[float, float | None] = (np.inf, None)
    for guess in (*(sizes[-1] / top for top in _USUAL_TOPS), _common_divisor(sizes)):
        best = min(best, _tried(sizes, guess), key=lambda found: found[0])
        if best[0] == 0:
            break
    return best[1]


def _common_divisor(sizes: np.ndarray) -> float:
    """The greatest common divisor of numbers that are off by their rounding: Euclid's algorithm, one more at a time.

    What it finds is fitted to all of them so far: else each division would carry the error of those before it on.
    """
    least, divisor = sizes[-1] / (2 * _MOST), sizes[0]
    for count, size in enumerate(sizes[1:].tolist(), 2):
        rest = size
        while rest > least:
            divisor, rest = rest, abs(divisor - rest * round(divisor / rest))
        whole = np.rint(sizes[:count] / divisor)
        divisor = float((sizes[:count] * whole).sum() / max(1.0, (whole * whole).sum()))
    return float(divisor)


def _tried(sizes: np.ndarray, guess: float) -> tuple[float, float | None]:
    """(sum of residuals, scale) of the best float32 scale near `guess`; (inf, None) when it explains nothing."""
    whole = np.rint(sizes / guess)
    if not 1 <= whole[0] <= whole[-1] <= _MOST or np.abs(sizes / guess - whole).max() > _LEEWAY:
        return np.inf, None
    center = np.float32((sizes * whole).sum() / (whole * whole).sum())
    near = np.array([center, np.nextafter(center, np.float32(0)), np.nextafter(center, np.float32(np.inf))])
    made = near[:, None] * whole.astype(np.float32)  # (3, K)
    off = np.abs(made.view(np.int32).astype(np.int64) - sizes.astype(np.float32).view(np.int32))
    best = int(off.sum(1).argmin())
    return (float(off[best].sum()), float(near[best])) if off[best].max() <= _MOST_RESIDUAL else (np.inf, None)
