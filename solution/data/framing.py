"""A picture with boxes on a square: shrunk or grown without distortion, the rest of the square gray."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from solution.contracts import InputError

GRAY = 114
_LEAST_PIXELS = 2
_LEAST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Where a picture lies on the square: its width and height in pixels, its corner, whether it is mirrored."""

    width: int
    height: int
    left: int
    top: int
    mirrored: bool = False


@dataclass(frozen=True, kw_only=True)
class Vary:
    """How training pictures differ from epoch to epoch.

    zoom    sides grow or shrink by up to this share
    flip    chance of a mirror image
    color  brightness of each channel changes by up to this share
    """

    zoom: float = 0.4
    flip: float = 0.5
    color: float = 0.2

    def __post_init__(self) -> None:
        for name in ("zoom", "flip", "color"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"vary.{name} must lie in [0, 1), got {getattr(self, name)}")

    def placing(self, shape: tuple[int, ...], size: int, chance: np.random.Generator) -> Placing:
        """A random place; a picture larger than the square loses what lies beyond."""
        zoom = 1 + chance.uniform(-self.zoom, self.zoom)
        width, height = _sides(shape, size * zoom)
        left, top = (round(chance.uniform(*sorted((0, size - side)))) for side in (width, height))
        return Placing(width=width, height=height, left=left, top=top, mirrored=bool(chance.random() < self.flip))

    def colored(self, image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 with other brightness."""
        gains = 1 + chance.uniform(-self.color, self.color, 3)
        return np.clip(image * gains, 0, 255).astype(np.uint8)


def centerd(shape: tuple[int, ...], size: int) -> Placing:
    """As large as fits, in the middle."""
    width, height = _sides(shape, size)
    return Placing(width=width, height=height, left=(size - width) // 2, top=(size - height) // 2)


def _sides(shape: tuple[int, ...], longest: float) -> tuple[int, int]:
    scale = longest / max(shape[:2])
    return max(round(shape[1] * scale), 1), max(round(shape[0] * scale), 1)


def framed(image: np.ndarray, placing: Placing, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) uint8."""
    shrinks = placing.width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if image.shape[:2] != (placing.height, placing.width):
        image = cv2.resize(image, (placing.width, placing.height), interpolation=how)
    if placing.mirrored:
        image = image[:, ::-1]
    square = np.full((size, size, 3), GRAY, dtype=np.uint8)
    left, top = max(placing.left, 0), max(placing.top, 0)
    part = image[max(-placing.top, 0) :, max(-placing.left, 0) :][: size - top, : size - left]
    square[top : top + part.shape[0], left : left + part.shape[1]] = part
    return square


def corners(boxes: np.ndarray, placing: Placing) -> np.ndarray:
    """Boxes (M, 5) of class and fractions to (M, 5) float32 of class, x1, y1, x2, y2 in pixels of the square."""
    label, x, y, width, height = boxes.T
    x = 1 - x if placing.mirrored else x
    edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    sides, starts = (placing.width, placing.height), (placing.left, placing.top)
    return np.stack([label, *(edge * sides[i % 2] + starts[i % 2] for i, edge in enumerate(edges))], 1)


def visible(boxes: np.ndarray, size: int) -> np.ndarray:
    """Of boxes (M, 5) from `corners`, those that are still to be seen on the square, cut at its edge."""
    cut = np.concatenate([boxes[:, :1], boxes[:, 1:].clip(0, size)], 1)
    sides, whole = (part[:, 3:] - part[:, 1:3] for part in (cut, boxes))
    share = sides.prod(1) / np.maximum(whole.prod(1), 1e-9)
    return cut[(sides.min(1) >= _LEAST_PIXELS) & (share >= _LEAST_SHARE)]
