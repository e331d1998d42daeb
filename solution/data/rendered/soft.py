"""Bags, newspapers and shirts. Each function draws one, upright and filling the sheet."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.random import Generator

from solution.data.rendered.sheet import Sheet, box, bumps, creases, gray, lathe, oval, tint


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
