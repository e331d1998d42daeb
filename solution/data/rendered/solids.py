"""Boxes, cells and trays. Each function draws one, upright and filling the sheet."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from solution.data.rendered.sheet import UNIT, Sheet, box, bumps, gray, oval, round_light, tint

Lid = tuple[np.ndarray, np.ndarray, np.ndarray]  # its corner nearest to the viewer and the two edges from there


def _face(corner: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The parallelogram (4, 2) spanned at `corner`."""
    return np.array([corner, corner + one, corner + one + other, corner + other])


def draw_box(sheet: Sheet, rng: Generator) -> None:
    """A carton of three visible faces, taped or with its flaps open, brown or printed."""
    wide, deep, tall = rng.uniform(0.45, 0.75, size=3)
    rise = rng.uniform(0.3, 0.5)
    right, left, down = np.array([(wide, -wide * rise), (-deep, -deep * rise), (0, tall)])
    near = -(right + left + down) / 2  # the upper corner nearest to the viewer
    card = tint(rng, (0.05, 0.11), (0.3, 0.6), (0.5, 0.85)) if rng.random() < 0.85 else tint(rng, saturation=(0, 0.7))
    shadow = rng.uniform(0.55, 0.8)
    lit = (1, shadow) if rng.random() < 0.5 else (shadow, 1)
    sheet.fill(_face(near, right, down), card * lit[0])
    sheet.fill(_face(near, left, down), card * lit[1])
    (_flaps if rng.random() < 0.35 else _tape)(sheet, rng, (near, right, left), card)
    ink = card * 0.4 if rng.random() < 0.6 else tint(rng)
    corner, size = rng.uniform(0.1, 0.35, size=2), rng.uniform(0.3, 0.5, size=2)
    sheet.fill(_face(near + right * corner[0] + down * corner[1], right * size[0], down * size[1]), ink)
    sheet.shade(0.85 + 0.3 * bumps(rng, 5))


def _tape(sheet: Sheet, rng: Generator, lid: Lid, card: np.ndarray) -> None:
    """A closed lid (corner, edge, edge) with a strip of tape along the middle."""
    near, right, left = lid
    sheet.fill(_face(near, right, left), np.minimum(card * 1.15, 255))
    width = rng.uniform(0.12, 0.22)
    tape = card * rng.uniform(0.7, 0.9) if rng.random() < 0.5 else gray(rng, 0.75, 1.0)
    sheet.fill(_face(near + left * (0.5 - width / 2), right, left * width), tape)


def _flaps(sheet: Sheet, rng: Generator, lid: Lid, card: np.ndarray) -> None:
    """A dark inside and two flaps folded outwards."""
    near, right, left = lid
    sheet.fill(_face(near, right, left), card * 0.3)
    drop = np.array([0, rng.uniform(0.05, 0.15)])
    sheet.fill(_face(near, right, drop - left * 0.25), np.minimum(card * 1.1, 255))
    sheet.fill(_face(near + left, right, left * 0.25 - drop), np.minimum(card * 1.2, 255))


def draw_cell(sheet: Sheet, rng: Generator) -> None:
    """One or two round cells, a 9 V block or a button cell."""
    (_round_cells, _round_cells, _block_cell, _button_cell)[rng.integers(4)](sheet, rng)


def _round_cells(sheet: Sheet, rng: Generator) -> None:
    half, gap = rng.uniform(0.2, 0.3), rng.uniform(0.0, 0.15)
    body, end = tint(rng, value=(0.1, 0.4)), tint(rng, (0.05, 0.13), (0.5, 0.9), (0.6, 0.95))
    if rng.random() < 0.3:
        end = tint(rng, saturation=(0.0, 0.9), value=(0.5, 1.0))
    middles = (-half - gap / 2, half + gap / 2) if rng.random() < 0.5 else (0.0,)
    split, metal, light = rng.uniform(-0.5, 0.1), gray(rng, 0.7, 0.9), round_light(rng, half, rng.uniform(0.4, 0.9))
    for x in middles:
        sheet.fill(box(x - half * 0.4, -0.98, x + half * 0.4, -0.8), metal)
        sheet.fill(box(x - half, -0.86, x + half, 0.9), body)
        sheet.fill(box(x - half, -0.86, x + half, split), end)
        sheet.fill(box(x - half, 0.86, x + half, 0.92), metal)
        _plus(sheet, (x, split - 0.18), half * 0.45, body)
    sheet.shade(light if len(middles) == 1 else np.maximum(*(np.roll(light, round(x * UNIT), axis=1) for x in middles)))


def _plus(sheet: Sheet, center: tuple[float, float], size: float, ink: np.ndarray) -> None:
    x, y = center
    sheet.line([(x - size, y), (x + size, y)], ink, size * 0.4)
    sheet.line([(x, y - size), (x, y + size)], ink, size * 0.4)


def _block_cell(sheet: Sheet, rng: Generator) -> None:
    half, metal = rng.uniform(0.42, 0.55), gray(rng, 0.65, 0.85)
    sheet.fill(box(-half * 0.7, -0.95, -half * 0.2, -0.7), metal)
    sheet.fill(oval((half * 0.45, -0.83), (half * 0.28, 0.14), 4), metal * 0.8)
    body, band = tint(rng, value=(0.1, 0.7)), tint(rng, saturation=(0.4, 0.9), value=(0.6, 1.0))
    sheet.fill(oval((0, 0.1), (half, 0.85), 12), body)
    with sheet.clipped():
        sheet.fill(box(-1, -0.75, 1, -0.6), metal)
        sheet.fill(box(-1, -0.6, 1, rng.uniform(-0.35, 0.2)), band)
    _plus(sheet, (half * 0.45, -0.45), 0.13, body)
    sheet.shade(round_light(rng, half, rng.uniform(0.2, 0.6)))


def _button_cell(sheet: Sheet, rng: Generator) -> None:
    metal, radius = gray(rng, 0.6, 0.85), rng.uniform(0.6, 0.8)
    sheet.fill(oval((0, rng.uniform(0.08, 0.18)), (radius, radius)), metal * 0.45)
    sheet.fill(oval((0, 0), (radius, radius)), metal)
    sheet.fill(oval((0, 0), (radius * 0.85, radius * 0.85)), metal * 0.85)
    _plus(sheet, (0, -radius * 0.3), radius * 0.25, metal * 0.4)
    sheet.line([(-radius * 0.4, radius * 0.3), (radius * 0.4, radius * 0.3)], metal * 0.5, 0.08)
    sheet.shade(0.8 + 0.4 * bumps(rng, 3))


def draw_tray(sheet: Sheet, rng: Generator) -> None:
    """A foam tray with a deep floor, or an open clamshell of two."""
    foam = gray(rng, 0.85, 1.0) if rng.random() < 0.8 else tint(rng, saturation=(0.2, 0.6), value=(0.3, 0.95))
    if rng.random() < 0.35:
        _dish(sheet, rng, (-0.5, 0.46), foam)
        _dish(sheet, rng, (0.5, 0.46), foam)
    else:
        _dish(sheet, rng, (0.0, rng.uniform(0.55, 0.75)), foam)
    sheet.shade(0.9 + 0.2 * bumps(rng, 4))


def _dish(sheet: Sheet, rng: Generator, place: tuple[float, float], foam: np.ndarray) -> None:
    """One dish: `place` is (y of its center, half height)."""
    y, tall = place
    wide, wall, power = rng.uniform(0.7, 0.95), rng.uniform(0.12, 0.2), rng.uniform(4, 9)
    lean = rng.uniform(-0.05, 0.05, size=2)
    sheet.fill(oval((0, y), (wide, tall), power), foam)
    sheet.fill(oval((0, y), (wide - 0.06, tall - 0.06), power), foam * 0.8)
    sheet.fill(oval((lean[0], y + lean[1]), (wide - wall, tall - wall), power), foam * 0.92)
    for x in np.linspace(-wide * 0.6, wide * 0.6, 5):
        sheet.line([(x, y - tall + wall * 1.4), (x, y + tall - wall * 1.4)], foam * 0.84, 0.03)
