"""Every recipe by its name, and recipes of one's own from any Python file."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from solution.contracts import InputError, Recipe
from solution.recipes import bits, detector, four_models, googlenet
from solution.recipes.waste import distilled, four_bits, micro, report as waste, shufflenet, teacher
from solution.report.sections import RecipeInfo
from solution.runtime import check_readable
from solution.settings import settings_of
from solution.shrink import result as shrink
from solution.text import did_you_mean

RECIPES: dict[str, Callable[[], Recipe]] = {
    "waste_shufflenet": shufflenet.recipe,
    "waste_distilled": distilled.recipe,
    "waste_four_bits": four_bits.recipe,
    "waste_micro": micro.recipe,
    "waste_micro_small": micro.small,
    "waste_micro_peer": micro.peer,
    "waste_teacher": teacher.recipe,
    "waste_teacher_efficientnet": teacher.efficientnet,
    "googlenet_cifar100": googlenet.recipe,
    "googlenet_cifar100_small": googlenet.small,
    "detector_yolov8n": detector.recipe,
    "detector_ssdlite": detector.ssdlite,
    "detector_ssdlite_coco": detector.ssdlite_coco,
}
FAMILIES: dict[str, Callable[[str | None], dict[str, Recipe]]] = {
    "four_models": four_models.cells,
    "four_models_small": four_models.small,
}
SPACES = {"waste_shufflenet": shufflenet.space, "waste_distilled": distilled.space}


def named(name: str) -> Recipe:
    """The recipe called `name`, or that of the file NAME.py; `InputError` lists the right names."""
    if _is_file(name):
        return recipe_in(Path(name))
    if name in FAMILIES:
        raise InputError(f"{name} is a family of recipes, which `run` takes; one recipe is: {', '.join(RECIPES)}")
    if name not in RECIPES:
        known = [*RECIPES, *FAMILIES]
        hint = did_you_mean(name, known)
        raise InputError(f"there is no recipe {name!r}{hint}; there are: {', '.join(known)}, and any FILE.py")
    return RECIPES[name]()


def family_named(name: str, data: str | None) -> dict[str, Recipe]:
    """{cell: its recipe} of the family called `name`, or of the file NAME.py; empty when that is one recipe.

    A file of a family has a function ``cells(data)`` that returns {"<data set>/<cell>": its recipe}.

    data  takes the place of the family's own data sets
    """
    if not _is_file(name):
        return FAMILIES[name](data) if name in FAMILIES else {}
    path = Path(name)
    made = _called(path, "cells", data) if "cells" in _contents(path) else {}
    if not isinstance(made, dict) or not all(isinstance(recipe, Recipe) for recipe in made.values()):
        raise InputError(f"{path}: cells() must return a dictionary of recipes")
    return made


def space_named(name: str) -> dict[str, Any]:
    """What a search over the recipe called `name` varies, {key: choices or range}, as ``space()`` of its file returns;
    empty when there is none."""
    if not _is_file(name):
        return SPACES.get(name, dict)()
    path = Path(name)
    return _called(path, "space") if "space" in _contents(path) else {}


def info_of(name: str) -> RecipeInfo:
    """What is known of the recipe of this name: its settings today, or those that all cells of a family share, and its
    report. Nothing for a recipe of elsewhere."""
    if name == shrink.NAME:
        return shrink.INFO
    if name == bits.RECIPE:
        return RecipeInfo(report=bits.report, together=True)
    if name in FAMILIES:
        cell = next(iter(FAMILIES[name](None).values()))
        shared = {key: value for key, value in settings_of(cell).items() if not key.startswith("model.")}
        return RecipeInfo(defaults=shared, report=cell.report, together=True)
    if name not in RECIPES:
        return RecipeInfo()
    recipe = RECIPES[name]()
    overview = waste.overview if recipe.report is waste.report else None
    return RecipeInfo(defaults=settings_of(recipe), report=recipe.report, overview=overview)


def recipe_in(path: Path) -> Recipe:
    """What `recipe()` of the file at `path` returns. The file is run: it is code, not data."""
    made = _called(path, "recipe")
    if not isinstance(made, Recipe):
        raise InputError(f"{path}: recipe() must return a Recipe, it returned {type(made).__name__}")
    return made


def _is_file(name: str) -> bool:
    return name.endswith(".py")


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
