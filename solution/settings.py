"""One key for every setting of a recipe: ``data.size``, ``model.units``, ``<stage>.lr``, ``data.augment.flip``.

A stage that brings a net of its own, or a size, has these too: ``<stage>.model.units``, ``<stage>.size``.
``every.epochs`` is that setting of all stages that have it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from solution.contracts import InputError, Recipe, Stage
from solution.text import did_you_mean


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Every key with its value, in reading order."""
    parts = {"data": recipe.data, "model": recipe.model}
    for stage in recipe.stages:
        parts[stage.name] = stage.step
        parts |= {f"{stage.name}.{name}": value for name, value in _own(stage).items()}
    return {key: value for name, part in parts.items() for key, value in _flat(name, part)}


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    if not dataclasses.is_dataclass(value):
        return [(key, value)]
    fields = dataclasses.fields(value)
    return [pair for field in fields for pair in _flat(f"{key}.{field.name}", getattr(value, field.name))]


def meanings(recipe: Recipe) -> dict[str, str]:
    """{key: what it is for} of every setting, from the docstrings of the dataclasses; "" where they are silent."""
    parts: dict[str, Any] = {"data": recipe.data, "model": recipe.model}
    parts |= {stage.name: stage.step for stage in recipe.stages}
    found = {key: text for name, part in parts.items() for key, text in _meanings_in(name, part)}
    stage_fields = field_meanings(Stage)
    return {key: found.get(key, stage_fields.get(key.rpartition(".")[2], "")) for key in settings_of(recipe)}


def _meanings_in(key: str, value: Any) -> list[tuple[str, str]]:
    known, pairs = field_meanings(type(value)), []
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        own = f"{key}.{field.name}"
        pairs += _meanings_in(own, inner) if dataclasses.is_dataclass(inner) else [(own, known.get(field.name, ""))]
    return pairs


def field_meanings(kind: type) -> dict[str, str]:
    """{field: its line in the docstring} of a dataclass and of those that it is derived from.

    A line is "name   text" or "name, other   text", and goes on where the text is indented.
    """
    fields = {field.name for field in dataclasses.fields(kind)}
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        names: list[str] = []
        for line in inspect.cleandoc(one.__dict__.get("__doc__") or "").splitlines():
            start = re.match(r"(\w+(?:, \w+)*)\s*(.*)", line)
            if start and fields.issuperset(start[1].split(", ")):
                names = start[1].split(", ")
                found |= dict.fromkeys(names, start[2])
            elif line.startswith("  ") and names:
                found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
            else:
                names = []
    return found


def changed_fields(value: Any) -> list[tuple[str, Any]]:
    """(name, value) of the fields of a dataclass that do not have their default value."""
    pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value) if field.init]
    return [(field.name, item) for field, item in pairs if item != default_of(field)]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default value of a field; `dataclasses.MISSING` without one."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def in_short(value: Any) -> str:
    """A step or another dataclass with those settings alone that are not the defaults: "Train(epochs=30)"."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    listed = ", ".join(f"{name}={in_short(item)}" for name, item in changed_fields(value))
    return f"{type(value).__name__}({listed})"


def with_setting(recipe: Recipe, key: str, value: Any) -> Recipe:
    """`with_settings` for one setting."""
    return with_settings(recipe, {key: value})


def with_settings(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with these settings changed, all at once: some go together only.

    {key: value}; ``every.`` stands for all stages that have the setting, of two values for one setting the last
    counts, and a string is read as the setting's type ("2,5,2" as a tuple). Raises `InputError` that lists the right
    keys for an unknown one, and the type wanted for a wrong value.
    """
    known = settings_of(recipe)
    changed = {member: value for key, value in changes.items() for member in _keys_of(key, known)}
    own: dict[str, dict[str, Any]] = {}
    for key, value in changed.items():
        name, _, rest = key.partition(".")
        own.setdefault(name, {})[rest] = value
    return dataclasses.replace(
        recipe,
        data=_replaced(recipe.data, own.get("data", {}), "data"),
        model=_replaced(recipe.model, own.get("model", {}), "model"),
        stages=tuple(_restaged(stage, own.get(stage.name, {})) for stage in recipe.stages),
    )


def changed(part: Any, changes: Mapping[str, Any], name: str) -> Any:
    """A dataclass that stands under `name`, with {"name.field": value} changed. Errors as of `with_settings`."""
    known = dict(_flat(name, part))
    for key in changes:
        if key not in known:
            raise InputError(_unknown(key, known))
    return _replaced(part, {key.partition(".")[2]: value for key, value in changes.items()}, name)


def _keys_of(key: str, known: Mapping[str, Any]) -> list[str]:
    name, _, rest = key.partition(".")
    if name == Stage.EVERY and (members := _members(rest, known)):
        return members
    if key not in known:
        raise InputError(_unknown(key, known))
    return [key]


def gathered(changes: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The same {key: value}, where one value stands for all stages that have a setting among `known`: as every."""
    shown = {}
    for key, value in changes.items():
        _, _, rest = key.partition(".")
        members = _members(rest, known)
        shared = len(members) > 1 and key in members and all(changes.get(other) == value for other in members)
        shown[f"{Stage.EVERY}.{rest}" if shared else key] = value
    return shown


def _members(setting: str, known: Collection[str]) -> list[str]:
    """The keys of one setting in all stages."""
    parts = (key.partition(".") for key in known)
    return [f"{name}.{rest}" for name, _, rest in parts if rest == setting and name not in ("data", "model")]


def _own(stage: Stage) -> dict[str, Any]:
    """What a stage sets besides its step."""
    return {name: value for name in ("model", "size") if (value := getattr(stage, name)) is not None}


def _restaged(stage: Stage, changes: Mapping[str, Any]) -> Stage:
    mine = {path: value for path, value in changes.items() if path.partition(".")[0] in _own(stage)}
    others = {path: value for path, value in changes.items() if path not in mine}
    stage = _replaced(stage, mine, stage.name)
    return dataclasses.replace(stage, step=_replaced(stage.step, others, stage.name))


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    siblings = [other for other in known if other.partition(".")[0] == key.partition(".")[0]]
    return f"there is no setting {key!r}{did_you_mean(key, known)}; there are: {', '.join(siblings or known)}"


def _replaced(part: Any, changes: Mapping[str, Any], key: str) -> Any:
    """`part`, which has this key, with {path in it: value}."""
    if not changes:
        return part
    nested: dict[str, dict[str, Any]] = {}
    fields = {}
    for path, value in changes.items():
        field, _, rest = path.partition(".")
        if rest:
            nested.setdefault(field, {})[rest] = value
        else:
            fields[field] = _parsed(part, field, value, key)
    fields |= {field: _replaced(getattr(part, field), own, f"{key}.{field}") for field, own in nested.items()}
    return dataclasses.replace(part, **fields)


def _parsed(part: Any, field: str, value: Any, key: str) -> Any:
    hint = typing.get_type_hints(type(part))[field]
    try:
        return parse(value, hint)
    except TypeError as error:
        raise InputError(f"{key}.{field} takes {_spelled(hint)}, got {value!r}") from error


def parse(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`; strings are read, other values checked. Raises `TypeError` when it does not fit."""
    if isinstance(value, str) and not _fits(value, hint):
        value = _names(value) if tuple[str, ...] in _options(hint) else _literal(value)
    if isinstance(value, list):
        value = tuple(value)
    value = _widened(value, hint)
    if not _fits(value, hint):
        raise TypeError(f"{value!r} is not {_spelled(hint)}")
    return value


def _names(text: str) -> tuple[str, ...]:
    """The words of "a,b"; a literal ("('a', 'b')") is read as one."""
    if text.startswith(("(", "[")):
        return _literal(text)
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise TypeError(text) from error


def _options(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _widened(value: Any, hint: Any) -> Any:
    options = _options(hint)
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        try:
            return float(value)
        except OverflowError as error:
            raise TypeError(f"{value} is too large") from error
    wants_tuple = any(typing.get_origin(option) is tuple for option in options)
    if wants_tuple and isinstance(value, int | float) and not _fits(value, hint):
        return (value,)
    if isinstance(value, tuple):
        inner = [typing.get_args(option)[0] for option in options if typing.get_origin(option) is tuple]
        return tuple(_widened(item, inner[0]) for item in value) if inner else value
    return value


def _fits(value: Any, hint: Any) -> bool:
    return any(_fits_one(value, option) for option in _options(hint))


def _fits_one(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and _tuple_fits(value, typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    wanted = typing.get_origin(hint) or hint
    return isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool)


def _tuple_fits(value: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return all(_fits(item, inner[0]) for item in value)
    return len(value) == len(inner) and all(_fits(item, part) for item, part in zip(value, inner, strict=True))


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
