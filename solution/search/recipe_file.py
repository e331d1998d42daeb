"""A recipe as a Python file that `run` takes: settings that have their default value are left away."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from solution.contracts import Recipe
from solution.recipes.catalogue import recipe_in
from solution.runtime import written_whole
from solution.settings import changed_fields

_WIDTH = 100
_STEP = "    "


def write_recipe(path: Path, recipe: Recipe, about: str) -> None:
    """Write `recipe` to `path`, whole, with `about` as the docstring. The file, run, gives the very recipe back."""
    imports = sorted({f"from {kind.__module__} import {kind.__name__}" for kind in _kinds(recipe)})
    text = "\n".join(
        [
            f'"""{about}"""\n',
            "from __future__ import annotations\n",
            *imports,
            "\n\ndef recipe() -> Recipe:",
            f'{_STEP}"""The settings that were found."""',
            f"{_STEP}return {spelled(recipe, _STEP)}\n",
        ]
    )
    with written_whole(path) as temporary:
        temporary.write_text(text)
        found = recipe_in(temporary)
        if found != recipe:
            raise RuntimeError(f"the file would give another recipe back:\n{found}\ninstead of\n{recipe}")


def _kinds(value: Any) -> Iterator[type | FunctionType]:
    """Every dataclass and every function in `value`."""
    if isinstance(value, FunctionType):
        yield value
    elif dataclasses.is_dataclass(value):
        yield type(value)
        for _, item in changed_fields(value):
            yield from _kinds(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _kinds(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _kinds(item)


def spelled(value: Any, indent: str = "") -> str:
    """`value` as Python, broken into lines where it is long. The first line stands behind `indent`."""
    if isinstance(value, FunctionType):
        return value.__name__
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if dataclasses.is_dataclass(value):
        named = [(f"{name}=", item) for name, item in changed_fields(value)]
        return _bracketed(f"{type(value).__name__}(", named, ")", indent)
    if isinstance(value, tuple | list):
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        return _bracketed(opening, [("", item) for item in value], closing, indent)
    if isinstance(value, dict):
        return _bracketed("{", [(f"{spelled(key)}: ", item) for key, item in value.items()], "}", indent)
    return repr(value)


def _bracketed(opening: str, parts: list[tuple[str, Any]], closing: str, indent: str) -> str:
    flat = ", ".join(name + spelled(item) for name, item in parts)
    lone = "," if len(parts) == 1 and opening == "(" else ""
    if "\n" not in flat and len(indent) + len(opening) + len(flat) <= _WIDTH:
        return f"{opening}{flat}{lone}{closing}"
    inner = indent + _STEP
    lines = [f"{inner}{name}{spelled(item, inner)},\n" for name, item in parts]
    return f"{opening}\n{''.join(lines)}{indent}{closing}"
