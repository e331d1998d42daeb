"""Cut off the flat padding around a photo, whose shape can betray the class.

A letterboxed photo is a filled rectangle on a ground of one color; a product on a white table is not, and stays.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 12
"""Gray levels by which a channel may differ from the color of the padding (JPEG noise)."""

_NOISE_SHARE = 0.05
_FILLED_SHARE = 0.7
_BLURRED_LINES = 3
_MIN_SIDE = 8

Span = tuple[int, int]


def trim_borders(image: np.ndarray) -> np.ndarray:
    """The photo inside its padding, a view of the (H, W, 3) uint8 image; the image itself when there is none.

    The padding has one color, and most of each line where the photo begins differs from it.
    """
    color = _flat_edge(image)
    if color is None:
        return image
    content = _far_from(image, color)  # (H, W)
    rows, columns = _extent(content, axis=1), _extent(content, axis=0)
    if rows is None or columns is None:
        return image
    box = content[slice(*rows), slice(*columns)]
    inner_rows, inner_columns = _filled(box, rows, len(image)), _filled(box.T, columns, image.shape[1])
    if inner_rows is None or inner_columns is None:
        return image
    return image[slice(*inner_rows), slice(*inner_columns)]


def _flat_edge(image: np.ndarray) -> np.ndarray | None:
    for line in (image[0], image[-1], image[:, 0], image[:, -1]):
        color = np.median(line, axis=0)
        if _far_from(line, color).mean() <= _NOISE_SHARE:
            return color
    return None


def _far_from(pixels: np.ndarray, color: np.ndarray) -> np.ndarray:
    return (np.abs(pixels - color.astype(np.int16)) > TOLERANCE).any(axis=-1)


def _extent(content: np.ndarray, axis: int) -> Span | None:
    lines = np.flatnonzero(content.mean(axis=axis) > _NOISE_SHARE)
    return (int(lines[0]), int(lines[-1]) + 1) if len(lines) else None


def _filled(box: np.ndarray, span: Span, size: int) -> Span | None:
    """`span`, shrunk past blurred lines to the first filled one at each padded end; None if there is none."""
    filled = box.mean(axis=1) >= _FILLED_SHARE
    first = _first_filled(filled) if span[0] > 0 else 0
    last = _first_filled(filled[::-1]) if span[1] < size else 0
    if first is None or last is None or len(filled) - first - last < _MIN_SIDE:
        return None
    return span[0] + first, span[1] - last


def _first_filled(filled: np.ndarray) -> int | None:
    lines = np.flatnonzero(filled[:_BLURRED_LINES])
    return int(lines[0]) if len(lines) else None
