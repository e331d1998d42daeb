"""One file per reference system and per published result.

waste_shufflenet   the competition: ShuffleNet 4,8,4 -> 2,5,2 on photos of waste
"""

from __future__ import annotations

from solution.contracts import InputError, Recipe
from solution.recipes import waste_shufflenet

RECIPES = {"waste_shufflenet": waste_shufflenet.recipe}


def named(name: str) -> Recipe:
    """The recipe called `name`; `InputError` lists the right names."""
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]()
