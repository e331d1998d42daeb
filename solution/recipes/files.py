"""Recipes of one's own: any Python file with a function `recipe()`, and `space()` if it is to be searched.

A family of recipes has `cells(data)` instead, which returns {"<data set>/<cell>": its recipe}; `data` is the path that
takes the place of its own data sets, or None.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from solution.contracts import InputError, Recipe
from solution.runtime import check_readable


def is_file(name: str) -> bool:
    """Whether `name` means a file."""
    return name.endswith(".py")


def recipe_in(path: Path) -> Recipe:
    """What `recipe()` of the file at `path` returns. The file is run: it is code, not data."""
    made = _called(path, "recipe")
    if not isinstance(made, Recipe):
        raise InputError(f"{path}: recipe() must return a Recipe, it returned {type(made).__name__}")
    return made


def space_in(path: Path) -> dict[str, Any]:
    """What `space()` of the file at `path` returns; empty when it has none."""
    return _called(path, "space") if "space" in _contents(path) else {}


def cells_in(path: Path, data: str | None) -> dict[str, Recipe]:
    """What `cells(data)` of the file at `path` returns; empty when it has none."""
    made = _called(path, "cells", data) if "cells" in _contents(path) else {}
    if not isinstance(made, dict) or not all(isinstance(recipe, Recipe) for recipe in made.values()):
        raise InputError(f"{path}: cells() must return a dictionary of recipes")
    return made


def _called(path: Path, name: str, *values: Any) -> Any:
    contents = _contents(path)
    if not callable(contents.get(name)):
        raise InputError(f"{path} has no function {name}(); see solution/recipes for how a recipe looks")
    return contents[name](*values)


def _contents(path: Path) -> dict[str, Any]:
    check_readable(path, "recipe file")
    try:
        return runpy.run_path(str(path))
    except (SyntaxError, ImportError, NameError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a recipe ({type(error).__name__}: {error})") from error
