"""Class name -> drawing: bottles, cans, cups; boxes, cells, trays; bags, newspapers, shirts, each on its own sheet."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from solution.data.rendered.sheet import UNIT, Sheet, box, bumps, creases, gray, lathe, oval, round_light, tint

_GLASS = (
    ((0.25, 0.4), (0.5, 0.9), (0.3, 0.65)),  # green
    ((0.05, 0.1), (0.6, 0.9), (0.25, 0.5)),  # brown
    ((0.5, 0.6), (0.05, 0.35), (0.7, 0.95)),  # clear
    ((0.45, 0.65), (0.3, 0.9), (0.5, 0.95)),  # blue plastic
)


def draw_bottle(sheet: Sheet, rng: Generator) -> None:
    """Glass or PET: body, shoulder, neck, cap; often a label."""
    body, neck = rng.uniform(0.24, 0.4), rng.uniform(0.08, 0.14)
    shoulder, slope = rng.uniform(-0.4, 0.0), rng.uniform(0.15, 0.4)
    waist = body * rng.choice([1.0, 1.0, 0.82])
    top = [(-0.9, neck), (shoulder - slope, neck * 1.15), (shoulder - slope * 0.5, body * 0.65), (shoulder, body)]
    glass = tint(rng, *_GLASS[rng.integers(len(_GLASS))])
    sheet.fill(lathe([*top, (0.4, waist), (0.9, body), (0.98, body * 0.85)]), glass, rng.uniform(0.6, 1.0))
    if rng.random() < 0.7:
        with sheet.clipped():
            _label(sheet, rng, shoulder + rng.uniform(0.08, 0.25), rng.uniform(0.5, 0.75))
    cap = tint(rng) if rng.random() < 0.6 else gray(rng, 0.2, 0.95)
    sheet.fill(box(-neck * 1.25, -1.0, neck * 1.25, rng.uniform(-0.88, -0.8)), cap)
    sheet.shade(round_light(rng, body, rng.uniform(0.3, 0.9)))


def _label(sheet: Sheet, rng: Generator, top: float, bottom: float) -> None:
    """A printed band across the whole sheet, with a stripe or a round emblem."""
    sheet.fill(box(-1, top, 1, bottom), tint(rng, saturation=(0.0, 0.9), value=(0.5, 1.0)))
    ink, middle, height = tint(rng), (top + bottom) / 2, bottom - top
    if rng.random() < 0.5:
        sheet.fill(oval((0.0, middle), (0.15, height * 0.35)), ink)
    else:
        sheet.fill(box(-1, middle, 1, middle + height * rng.uniform(0.1, 0.35)), ink)


def draw_can(sheet: Sheet, rng: Generator) -> None:
    """A drink can or a ribbed food tin, seen slightly from above, sometimes squashed."""
    half, tilt = rng.uniform(0.4, 0.6), rng.uniform(0.1, 0.2)
    end = rng.uniform(0.6, 0.92) - tilt
    ribbed = rng.random() < 0.4
    rim = half * (0.98 if ribbed else rng.uniform(0.8, 0.9))
    dent = half * (rng.uniform(0.65, 0.85) if rng.random() < 0.3 else 1.0)
    metal = gray(rng, 0.6, 0.85)
    sheet.fill(oval((0, end), (rim, tilt)), metal * 0.8)
    sheet.fill(lathe([(-end, rim), (-end + 0.12, half), (0.0, dent), (end - 0.1, half), (end, rim)]), metal)
    with sheet.clipped():
        (_ribs if ribbed else _can_print)(sheet, rng, end - 0.12)
    sheet.shade(round_light(rng, half, rng.uniform(0.5, 1.0)))
    lid = gray(rng, 0.65, 0.9)
    sheet.fill(oval((0, -end), (rim, tilt)), lid)
    sheet.fill(oval((0, -end + 0.01), (rim * 0.85, tilt * 0.8)), lid * 0.75)
    sheet.fill(oval((rng.uniform(-0.1, 0.1), -end), (rim * 0.3, tilt * 0.35)), lid * 0.45)


def _ribs(sheet: Sheet, rng: Generator, edge: float) -> None:
    for y in np.linspace(-edge + 0.05, edge - 0.05, 7):
        sheet.line([(-1, y), (1, y)], gray(rng, 0.35, 0.5), 0.03)
    if rng.random() < 0.5:
        _label(sheet, rng, -edge * 0.6, edge * 0.6)


def _can_print(sheet: Sheet, rng: Generator, edge: float) -> None:
    sheet.fill(box(-1, -edge, 1, edge), tint(rng, saturation=(0.5, 1.0), value=(0.3, 0.95)))
    start, slant = rng.uniform(-0.4, 0.2), rng.uniform(-0.5, 0.5)
    band = [(-1, start + slant), (1, start - slant), (1, start - slant + 0.3), (-1, start + slant + 0.3)]
    sheet.fill(np.array(band), tint(rng, saturation=(0.0, 0.9), value=(0.6, 1.0)))


def draw_cup(sheet: Sheet, rng: Generator) -> None:
    """A paper or plastic cup, wider at the top: open with a dark inside, or under a lid, with or without a straw."""
    mouth, foot = rng.uniform(0.5, 0.68), rng.uniform(0.28, 0.42)
    top, bottom, tilt = rng.uniform(-0.7, -0.45), rng.uniform(0.65, 0.85), rng.uniform(0.08, 0.17)
    paper = gray(rng, 0.85, 1.0) if rng.random() < 0.6 else tint(rng, (0.03, 0.12), (0.4, 0.8), (0.5, 0.9))
    sheet.fill(oval((0, bottom), (foot, tilt * 0.6)), paper * 0.85)
    sheet.fill(lathe([(top, mouth), (bottom, foot)]), paper)
    with sheet.clipped():
        sleeve = rng.uniform(-0.25, 0.0)
        _label(sheet, rng, sleeve, sleeve + rng.uniform(0.3, 0.6))
    sheet.shade(round_light(rng, mouth, rng.uniform(0.0, 0.3)))
    (_cup_lid if rng.random() < 0.5 else _cup_mouth)(sheet, rng, top, (mouth, tilt))
    if rng.random() < 0.4:
        lean = rng.uniform(-0.35, 0.35)
        sheet.line([(lean * 0.3, top), (lean, -0.98)], tint(rng, value=(0.6, 1.0)), 0.07)


def _cup_mouth(sheet: Sheet, rng: Generator, top: float, radii: tuple[float, float]) -> None:
    across, deep = radii
    sheet.fill(oval((0, top), radii), gray(rng, 0.85, 1.0))
    sheet.fill(oval((0, top), (across * 0.9, deep * 0.8)), tint(rng, (0.04, 0.1), (0.2, 0.7), (0.2, 0.55)))


def _cup_lid(sheet: Sheet, rng: Generator, top: float, radii: tuple[float, float]) -> None:
    across, deep = radii
    lid = gray(rng, 0.85, 1.0) if rng.random() < 0.6 else gray(rng, 0.1, 0.3)
    sheet.fill(oval((0, top), (across * 1.07, deep)), lid * 0.85)
    sheet.fill(lathe([(top - 0.16, across * 0.85), (top, across * 1.05)]), lid * 0.9)
    sheet.fill(oval((0, top - 0.16), (across * 0.85, deep * 0.8)), lid)


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


def draw_bag(sheet: Sheet, rng: Generator) -> None:
    """A carrier bag with two handles, or a tied sack; thin, creased, often translucent."""
    film = gray(rng, 0.8, 1.0) if rng.random() < 0.7 else tint(rng, (0.3, 0.65), (0.2, 0.8), (0.2, 0.95))
    (_carrier if rng.random() < 0.6 else _sack)(sheet, rng, film)
    sheet.shade(creases(rng, 9, rng.uniform(0.4, 0.8)))


def _carrier(sheet: Sheet, rng: Generator, film: np.ndarray) -> None:
    clear, width = rng.uniform(0.65, 1.0), rng.uniform(0.55, 0.75)
    neck, strap = rng.uniform(-0.35, -0.15), rng.uniform(0.1, 0.16)
    for side in (-1, 1):
        outer, inner = side * (width - 0.05), side * (width - 0.05 - 2 * strap)
        tip = rng.uniform(-1.0, -0.85)
        sheet.fill(
            np.array([(outer, neck), (outer * 0.95, tip), (inner, tip + 0.05), (inner, neck + 0.1)]), film, clear
        )
    body = [(-width, neck), (width, neck), (width * 1.1, 0.3), (width, 0.92), (-width, 0.92), (-width * 1.1, 0.3)]
    sheet.fill(np.array(body) + rng.uniform(-0.07, 0.07, size=(6, 2)), film, clear)
    sheet.fill(oval((0, neck), (width - 2 * strap, 0.1)), film * 0.55, clear)
    if rng.random() < 0.6:
        sheet.fill(oval((0, 0.35), tuple(rng.uniform(0.15, 0.35, size=2)), rng.choice([2, 6])), tint(rng))


def _sack(sheet: Sheet, rng: Generator, film: np.ndarray) -> None:
    clear, knot = rng.uniform(0.75, 1.0), rng.uniform(-0.5, -0.35)
    outline = oval((0, 0.28), (rng.uniform(0.6, 0.8), 0.68), 2.3)
    sheet.fill(outline + rng.uniform(-0.05, 0.05, size=outline.shape), film, clear)
    for side in (-1, 1):
        tip = (side * rng.uniform(0.15, 0.45), rng.uniform(-1.0, -0.75))
        sheet.fill(np.array([(-0.14, knot + 0.15), tip, (tip[0] * 0.2, -0.7), (0.14, knot + 0.15)]), film * 0.9, clear)
    sheet.fill(oval((0, knot + 0.05), (0.16, 0.09)), film * 0.5)


def draw_newspaper(sheet: Sheet, rng: Generator) -> None:
    """A printed sheet: headline, photo, columns of text; flat, folded or a small pile."""
    wide, tall = rng.uniform(0.6, 0.9), rng.uniform(0.65, 0.95)
    paper, ink = tint(rng, (0.08, 0.15), (0.02, 0.15), (0.75, 0.95)), gray(rng, 0.1, 0.35)
    for layer in range(rng.integers(1, 4), 0, -1):
        sheet.fill(box(-wide, -tall, wide, tall) + layer * 0.03 * rng.uniform(-1, 1, 2), paper * (1 - 0.12 * layer))
    sheet.fill(box(-wide, -tall, wide, tall), paper)
    sheet.fill(box(-wide * 0.85, -tall * 0.9, wide * rng.uniform(0.2, 0.85), -tall * 0.72), ink)
    _columns(sheet, rng, (wide * 0.88, tall * 0.9), ink)
    picture = tint(rng, saturation=(0.0, 0.6), value=(0.25, 0.7)) if rng.random() < 0.7 else ink
    left, top = rng.uniform(-0.85, 0.0) * wide, rng.uniform(-0.55, 0.2) * tall
    sheet.fill(box(left, top, left + rng.uniform(0.5, 0.8) * wide, top + rng.uniform(0.35, 0.6) * tall), picture)
    fold = np.where(np.arange(sheet.pixels.shape[0]) < rng.uniform(30, 66), 1.0, rng.uniform(0.7, 0.9))
    sheet.shade((fold[:, None] if rng.random() < 0.5 else fold[None]) * creases(rng, 5, rng.uniform(0.1, 0.4)))


def _columns(sheet: Sheet, rng: Generator, half: tuple[float, float], ink: np.ndarray) -> None:
    """Gray lines of text in two to four columns between -half and half."""
    wide, tall = half
    edges = np.linspace(-wide, wide, rng.integers(3, 6))
    for y in np.arange(-tall * 0.6, tall, rng.uniform(0.09, 0.14)):
        for left, right in itertools.pairwise(edges):
            sheet.line([(left, y), (right - 0.08, y)], ink + 70, 0.03)


def draw_shirt(sheet: Sheet, rng: Generator) -> None:
    """A T-shirt, pullover or vest, plain, striped or with a print, in folds."""
    cloth = gray(rng, 0.1, 0.95) if rng.random() < 0.3 else tint(rng, (0.52, 1.04), (0.4, 0.9), (0.25, 0.85))
    half, collar = rng.uniform(0.4, 0.52), rng.uniform(0.14, 0.22)
    reach = rng.choice([0.0, *5 * [0.5], *4 * [0.6]])  # how far the sleeves go: vest, T-shirt, pullover
    shoulder = [(-0.85, collar), (-0.75, half)]
    sheet.fill(lathe([*shoulder, *_sleeve(rng, half, reach), (-0.25, half), (0.9, half * 1.02)]), cloth)
    with sheet.clipped():
        (_stripes, _emblem, _emblem, _plain)[rng.integers(4)](sheet, rng)
        sheet.fill(oval((0, -0.88), (collar + 0.02, rng.uniform(0.15, 0.35))), cloth * 0.45)
    sheet.shade(creases(rng, 6, rng.uniform(0.2, 0.5)) * (0.9 + 0.2 * bumps(rng, 3)))


def _sleeve(rng: Generator, half: float, reach: float) -> list[tuple[float, float]]:
    if reach == 0:
        return [(-0.4, half * 0.8)]
    drop = rng.uniform(0.35, 0.9) * reach
    tip = min(half + reach, 0.99)
    return [(-0.7 + drop, tip), (-0.45 + drop, tip - 0.14)]


def _stripes(sheet: Sheet, rng: Generator) -> None:
    ink, width = tint(rng, saturation=(0.0, 0.9), value=(0.2, 1.0)), rng.uniform(0.08, 0.2)
    turned = rng.random() < 0.3
    for start in np.arange(-1, 1, width * 2):
        stripe = box(-1, start, 1, start + width)
        sheet.fill(stripe[:, ::-1] if turned else stripe, ink)


def _emblem(sheet: Sheet, rng: Generator) -> None:
    sheet.fill(oval((0, -0.15), tuple(rng.uniform(0.12, 0.28, size=2)), rng.choice([2, 6])), tint(rng))


def _plain(sheet: Sheet, rng: Generator) -> None:
    """Nothing is printed; the seam above the hem shows."""
    sheet.line([(-1, 0.8), (1, 0.8)], gray(rng, 0.2, 0.6), 0.03)


DRAWINGS: dict[str, Callable[[Sheet, Generator], None]] = {
    "Bags": draw_bag,
    "Bottles": draw_bottle,
    "Boxes": draw_box,
    "Cans": draw_can,
    "Cells": draw_cell,
    "Cups": draw_cup,
    "Newspapers": draw_newspaper,
    "Shirts": draw_shirt,
    "Trays": draw_tray,
}


def draw(name: str, rng: Generator) -> Sheet:
    """One object of class `name`, upright, on a sheet of its own."""
    sheet = Sheet()
    DRAWINGS[name](sheet, rng)
    return sheet
