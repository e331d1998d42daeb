"""One file per reference system and per published result.

waste_shufflenet   the competition: ShuffleNet 4,8,4 -> 2,5,2 on photos of waste
files              recipes of one's own, from any Python file
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from solution.contracts import InputError, Recipe
from solution.recipes import waste_shufflenet
from solution.recipes.files import is_file, recipe_in, space_in

RECIPES = {"waste_shufflenet": waste_shufflenet.recipe}
SPACES = {"waste_shufflenet": waste_shufflenet.space}


def named(name: str) -> Recipe:
    """The recipe called `name`, or that of the file NAME.py; `InputError` lists the right names."""
    if is_file(name):
        return recipe_in(Path(name))
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}, and any FILE.py")
    return RECIPES[name]()


def space_named(name: str) -> dict[str, Any]:
    """What a search over the recipe called `name` varies, {address: choices or range}; empty when nothing is said."""
    return space_in(Path(name)) if is_file(name) else SPACES.get(name, dict)()
