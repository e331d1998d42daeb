"""Class name -> drawing: the one list of what the rendered demo data show."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from solution.data.rendered.containers import draw_bottle, draw_can, draw_cup
from solution.data.rendered.sheet import Sheet
from solution.data.rendered.soft import draw_bag, draw_newspaper, draw_shirt
from solution.data.rendered.solids import draw_box, draw_cell, draw_tray

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
