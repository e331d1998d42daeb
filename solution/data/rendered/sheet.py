"""The canvas that one object is drawn on, its colors and its light.

Coordinates are in units: x to the right, y downwards, the object between -1 and 1 on both axes.
Colors are BGR arrays (3,) of 0 to 255.
"""

from __future__ import annotations

import colorsys
import contextlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.random import Generator

SIDE = 96
UNIT = 44.0  # pixels of one unit; the rest is a margin, so that a warped object never touches the canvas's border
_SHIFT = 4  # OpenCV draws at 1 / 2**_SHIFT of a pixel

Range = tuple[float, float]


class Sheet:
    """A transparent canvas; `pixels` (SIDE, SIDE, 4) uint8 hold BGR already multiplied by alpha, and alpha."""

    def __init__(self) -> None:
        self.pixels = np.zeros((SIDE, SIDE, 4), np.uint8)

    def fill(self, points: np.ndarray, color: np.ndarray, alpha: float = 1.0) -> None:
        """Fill the polygon `points` (N, 2); what lay under it is replaced, so alpha < 1 looks through the object."""
        cv2.fillPoly(self.pixels, [_fixed(points)], _ink(color, alpha), cv2.LINE_AA, _SHIFT)

    def line(self, points: Sequence[tuple[float, float]] | np.ndarray, color: np.ndarray, width: float) -> None:
        """Draw a line through `points`, `width` units wide (at least one pixel)."""
        thickness = max(1, round(width * UNIT))
        cv2.polylines(self.pixels, [_fixed(points)], False, _ink(color, 1.0), thickness, cv2.LINE_AA, _SHIFT)

    @contextlib.contextmanager
    def clipped(self) -> Iterator[None]:
        """Whatever is drawn in this block stays inside what was drawn before it."""
        outside = self.pixels[..., 3] == 0
        yield
        self.pixels[outside] = 0

    def shade(self, light: np.ndarray) -> None:
        """Multiply the colors by `light`, broadcast to (SIDE, SIDE)."""
        light = np.broadcast_to(light, (SIDE, SIDE)).astype(np.float32)
        colors = self.pixels[..., :3] * light[..., None]
        # Premultiplied color above alpha would glow through the edges; light below 0 would wrap around to it.
        self.pixels[..., :3] = np.clip(colors, 0, self.pixels[..., 3:])


def _fixed(points: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    return np.rint((np.asarray(points) * UNIT + SIDE / 2) * 2**_SHIFT).astype(np.int32)


def _ink(color: np.ndarray, alpha: float) -> tuple[float, ...]:
    return (*(np.clip(color, 0, 255) * alpha).tolist(), 255 * alpha)


def tint(
    rng: Generator, hue: Range = (0, 1), saturation: Range = (0.3, 0.9), value: Range = (0.35, 0.95)
) -> np.ndarray:
    """A random BGR color of the given ranges of hue (wraps at 1), saturation and value."""
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array([blue, green, red]) * 255


def gray(rng: Generator, low: float, high: float) -> np.ndarray:
    """A nearly neutral color of value `low` to `high`."""
    return tint(rng, saturation=(0, 0.08), value=(low, high))


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """A rectangle's corners (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def oval(center: tuple[float, float], radii: tuple[float, float], power: float = 2.0) -> np.ndarray:
    """A superellipse (28, 2): power 2 is an ellipse, 5 a rectangle with round corners."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.array(center) + np.array(radii) * np.sign(circle) * np.abs(circle) ** (2 / power)


def lathe(profile: Sequence[tuple[float, float]]) -> np.ndarray:
    """The outline of a turned body: `profile` lists (y, half width) from top to bottom."""
    right = np.array([(half, y) for y, half in profile])
    return np.concatenate([right, right[::-1] * (-1, 1)])


def bumps(rng: Generator, cells: int, side: int = SIDE) -> np.ndarray:
    """Smooth random values of about 0 to 1, (side, side) float32, with `cells` control points a side."""
    return cv2.resize(rng.random((cells, cells), dtype=np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def round_light(rng: Generator, half_width: float, gloss: float) -> np.ndarray:
    """Light (1, SIDE) on an upright cylinder: dark edges and one bright streak of strength `gloss`."""
    across = (np.arange(SIDE) - SIDE / 2) / (UNIT * half_width)
    streak = np.exp(-(((across - rng.uniform(-0.6, 0.6)) / 0.18) ** 2))
    return (1.05 - rng.uniform(0.25, 0.55) * np.minimum(across**2, 1.5) + gloss * streak)[None]


def creases(rng: Generator, cells: int, depth: float) -> np.ndarray:
    """Light (SIDE, SIDE) on crumpled material: sharp ridges between smooth faces."""
    return 1.1 - depth * np.abs(2 * bumps(rng, cells) - 1)
