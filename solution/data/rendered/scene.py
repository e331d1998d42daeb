"""One image: an object in some pose, on a background, among clutter, in some light, seen by a poor camera."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from solution.data.rendered.classes import DRAWINGS, draw
from solution.data.rendered.sheet import SIDE as SHEET_SIDE
from solution.data.rendered.sheet import Sheet, bumps, oval, tint

SIDE = 96
_NAMES = tuple(DRAWINGS)


def draw_scene(name: str, rng: Generator) -> np.ndarray:
    """A BGR image (SIDE, SIDE, 3) uint8 whose largest object is of class `name`."""
    scene = _background(rng)
    for _ in range(rng.integers(0, 3)):
        _paste(scene, _clutter(name, rng), _pose(rng, size=rng.uniform(0.25, 0.45), spread=0.45), rng)
    _paste(scene, draw(name, rng), _pose(rng, size=rng.uniform(0.8, 1.05), spread=0.06), rng)
    if rng.random() < 0.4:
        _paste(scene, _clutter(name, rng), _pose(rng, size=rng.uniform(0.2, 0.4), spread=0.4), rng)
    return _photograph(scene, rng)


def _clutter(name: str, rng: Generator) -> Sheet:
    """A torn-off part of an object of another class, or a scrap of no class."""
    if rng.random() < 0.5:
        other = _NAMES[(_NAMES.index(name) + rng.integers(1, len(_NAMES))) % len(_NAMES)]
        sheet = draw(other, rng)
        sheet.pixels[: round(SHEET_SIDE * rng.uniform(0.3, 0.6))] = 0
        return sheet
    sheet, color = Sheet(), tint(rng, saturation=(0.0, 0.9))
    if rng.random() < 0.5:
        points = oval((0, 0), tuple(rng.uniform(0.2, 0.9, size=2)))
        sheet.fill(points * rng.uniform(0.7, 1.1, size=(len(points), 1)), color)
    else:
        sheet.line(rng.uniform(-0.9, 0.9, size=(3, 2)), color, rng.uniform(0.05, 0.2))
    return sheet


def _pose(rng: Generator, size: float, spread: float) -> np.ndarray:
    """A perspective map (3, 3) from the sheet to the scene: turned, stretched, mirrored, tilted and moved.

    size    the object's larger side as a part of the scene's
    spread  the largest distance of its middle from the scene's, as a part of the scene's side
    """
    angle = rng.normal(0, 0.3) if rng.random() < 0.9 else rng.uniform(-np.pi, np.pi)
    stretch = rng.uniform(0.75, 1.0, size=2) * (1, rng.choice([-1, 1]))
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * stretch[::-1]
    corners = corners @ turn.T + rng.uniform(-0.1, 0.1, size=(4, 2))
    target = (0.5 + rng.uniform(-spread, spread, size=2) + corners * size / 2) * SIDE
    source = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * SHEET_SIDE
    return cv2.getPerspectiveTransform(source.astype(np.float32), target.astype(np.float32))


def _paste(scene: np.ndarray, sheet: Sheet, pose: np.ndarray, rng: Generator) -> None:
    """Lay the object and its soft shadow over `scene`, in place."""
    layer = cv2.warpPerspective(sheet.pixels, pose, (SIDE, SIDE), flags=cv2.INTER_LINEAR).astype(np.float32)
    alpha = layer[..., 3:] / 255
    offset = np.float32([(1, 0, rng.uniform(-5, 5)), (0, 1, rng.uniform(0, 6))])
    shadow = cv2.blur(cv2.warpAffine(alpha, offset, (SIDE, SIDE)), (7, 7))[..., None]
    scene *= (1 - rng.uniform(0.2, 0.6) * shadow) * (1 - alpha)
    scene += layer[..., :3]


def _background(rng: Generator) -> np.ndarray:
    """A surface (SIDE, SIDE, 3) float32: bare, planks, tiles, gravel or a crowd of blotches."""
    base = tint(rng, saturation=(0.0, 0.2), value=(0.3, 0.85)).astype(np.float32)
    kind = rng.integers(5)
    pattern = (_bare, _planks, _tiles, _gravel, _blotches)[kind](rng)
    return np.clip(base * pattern, 0, 255).astype(np.float32)


def _bare(rng: Generator) -> np.ndarray:
    return 0.8 + 0.4 * bumps(rng, 3, SIDE)[..., None]


def _planks(rng: Generator) -> np.ndarray:
    wide = rng.integers(10, 32)
    across = np.arange(SIDE) + rng.integers(wide)
    boards = rng.uniform(0.85, 1.1, size=SIDE // wide + 3)[across // wide] * np.where(across % wide < 2, 0.7, 1.0)
    grain = cv2.resize(rng.uniform(0.85, 1.15, size=(SIDE, 4)), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    pattern = boards[:, None] * grain
    return (pattern if rng.random() < 0.5 else pattern.T)[..., None]


def _tiles(rng: Generator) -> np.ndarray:
    wide = rng.integers(14, 40)
    joint = (np.arange(SIDE) + rng.integers(wide)) % wide < 2
    return np.where(joint[:, None] | joint[None], rng.uniform(0.7, 1.2), 0.9 + 0.2 * bumps(rng, 6, SIDE))[..., None]


def _gravel(rng: Generator) -> np.ndarray:
    return (0.8 + 0.4 * bumps(rng, rng.integers(20, 60), SIDE))[..., None]


def _blotches(rng: Generator) -> np.ndarray:
    cells = rng.integers(4, 12)
    mosaic = (rng.uniform(0.7, 1.2, size=(cells, cells, 1)) * rng.uniform(0.85, 1.1, size=(cells, cells, 3))).astype(
        np.float32
    )
    return cv2.resize(mosaic, (SIDE, SIDE), interpolation=rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC]))


def _photograph(scene: np.ndarray, rng: Generator) -> np.ndarray:
    """Uneven and colored light, gamma, blur and noise: (SIDE, SIDE, 3) uint8."""
    scene = scene * _light(rng) * rng.uniform(0.9, 1.1, size=3).astype(np.float32)
    scene = 255 * np.clip(scene / 255, 0, 1) ** np.float32(np.exp(rng.uniform(-0.4, 0.3)))
    if rng.random() < 0.5:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.4, 1.2))
    scene += rng.uniform(1, 8) * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.clip(scene, 0, 255).astype(np.uint8)


def _light(rng: Generator) -> np.ndarray:
    """Brightness (SIDE, SIDE, 1): a slope, often with a hard-edged shadow across."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.meshgrid(*2 * [np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)])
    along = np.cos(angle) * x + np.sin(angle) * y
    light = 1 + rng.uniform(0, 0.7) * along
    if rng.random() < 0.25:
        light = light * np.where(along > rng.uniform(-0.3, 0.5), rng.uniform(0.45, 0.8), 1.0)
    return (rng.uniform(0.75, 1.15) * light)[..., None].astype(np.float32)
