"""Bottles, cans and cups. Each function draws one, upright and filling the sheet."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from solution.data.rendered.sheet import Sheet, box, gray, lathe, oval, round_light, tint

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
