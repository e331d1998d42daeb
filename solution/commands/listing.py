"""What there is to choose from: recipes, settings of a recipe, steps, as tables."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solution.contracts import Recipe


def recipes() -> list[tuple[str, str]]:
    """(name, what it is) of every recipe and family."""
    from solution.recipes.catalogue import FAMILIES, RECIPES

    return [
        *((name, _first_line(make)) for name, make in RECIPES.items()),
        *((name, f"family of {len(make(None))}: {_first_line(make)}") for name, make in FAMILIES.items()),
    ]


def _first_line(make: Callable[..., Any]) -> str:
    """Of the file where a recipe is the only one, else of its function."""
    own = inspect.getdoc(make) if make.__name__ not in ("recipe", "cells") else sys.modules[make.__module__].__doc__
    return (own or "").strip().splitlines()[0]


def settings(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(key, value, meaning) of every setting."""
    from solution.settings import meanings, settings_of

    means = _said_once(meanings(recipe))
    return [(key, _spelled(value), means[key]) for key, value in settings_of(recipe).items()]


def _said_once(means: dict[str, str]) -> dict[str, str]:
    """A text that several neighbors share stands at the first of them; the others refer to it."""
    first, shown = "", {}
    for key, text in means.items():
        first = first if text and text == means.get(first) else key
        shown[key] = text if key == first else f"as {first.rpartition('.')[2]}"
    return shown


def steps() -> list[tuple[str, str, str]]:
    """(step or field, default, meaning) of all steps and their fields; a step has no default."""
    from solution.registry import STEPS
    from solution.settings import default_of, field_meanings

    lines = []
    for name, kind in STEPS.items():
        lines.append((name, "", (inspect.getdoc(kind) or "").splitlines()[0]))
        known = field_meanings(kind)
        means = _said_once({field.name: known[field.name] for field in dataclasses.fields(kind)})
        for field in dataclasses.fields(kind):
            default = default_of(field)
            shown = "needed" if default is dataclasses.MISSING else _spelled(default)
            lines.append((f"  {field.name}", shown, means[field.name]))
    return lines


def _spelled(value: Any) -> str:
    """As --set and --step take it, where they do."""
    from solution.settings import in_short

    if isinstance(value, tuple) and all(isinstance(item, str | int | float) for item in value):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return in_short(value) if dataclasses.is_dataclass(value) else str(value)


def show(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the screen; the last column wraps. Elsewhere than on a screen nothing is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for heading in headings[:-1]:
        table.add_column(heading, overflow="fold")
    table.add_column(headings[-1], overflow="fold", ratio=1)
    for line in lines:
        table.add_row(*line)
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(table)
