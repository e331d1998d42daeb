"""One file per reference system and per published result.

waste_shufflenet    the competition: ShuffleNet 4,8,4 -> 2,5,2 on photos of waste
waste_distilled     a wide, shallow one at 48 px, taught by a large net
waste_four_bits     that one in four bits a weight, from its committed file
waste_teacher       large nets that learn the same photos, to teach small ones
googlenet_cifar100  structured against unstructured pruning of a GoogLeNet, and int8
detector_yolov8n    a detector in every form: YOLOv8n, and torchvision's SSDLite without the extra
four_models         a family of cells: pruning, 16 to 1 bit and distillation of four nets on two data sets
files               recipes of one's own, from any Python file
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from solution.contracts import InputError, Recipe
from solution.recipes import (
    detector_yolov8n,
    four_models,
    googlenet_cifar100,
    waste_distilled,
    waste_four_bits,
    waste_shufflenet,
    waste_teacher,
)
from solution.recipes.files import cells_in, is_file, recipe_in, space_in

RECIPES: dict[str, Callable[[], Recipe]] = {
    "waste_shufflenet": waste_shufflenet.recipe,
    "waste_distilled": waste_distilled.recipe,
    "waste_four_bits": waste_four_bits.recipe,
    "waste_teacher": waste_teacher.recipe,
    "waste_teacher_efficientnet": waste_teacher.efficientnet,
    "googlenet_cifar100": googlenet_cifar100.recipe,
    "googlenet_cifar100_small": googlenet_cifar100.small,
    "detector_yolov8n": detector_yolov8n.recipe,
    "detector_ssdlite": detector_yolov8n.ssdlite,
    "detector_ssdlite_coco": detector_yolov8n.ssdlite_coco,
}
FAMILIES: dict[str, Callable[[str | None], dict[str, Recipe]]] = {
    "four_models": four_models.cells,
    "four_models_small": four_models.small,
}
SPACES = {"waste_shufflenet": waste_shufflenet.space, "waste_distilled": waste_distilled.space}


def named(name: str) -> Recipe:
    """The recipe called `name`, or that of the file NAME.py; `InputError` lists the right names."""
    if is_file(name):
        return recipe_in(Path(name))
    if name in FAMILIES:
        raise InputError(f"{name} is a family of recipes, which `run` takes; one recipe is: {', '.join(RECIPES)}")
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; there are: {', '.join([*RECIPES, *FAMILIES])}, and any FILE.py")
    return RECIPES[name]()


def family_named(name: str, data: str | None) -> dict[str, Recipe]:
    """{cell: its recipe} of the family called `name`, or of the file NAME.py; empty when that is one recipe.

    data: takes the place of the family's own data sets.
    """
    if is_file(name):
        return cells_in(Path(name), data)
    return FAMILIES[name](data) if name in FAMILIES else {}


def space_named(name: str) -> dict[str, Any]:
    """What a search over the recipe called `name` varies, {address: choices or range}; empty when nothing is said."""
    return space_in(Path(name)) if is_file(name) else SPACES.get(name, dict)()
