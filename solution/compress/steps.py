"""Every step by its name in the shell: ``step_from("prune_channels ratio=0.5")``."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import typing
from typing import Any

from solution.compress.cluster import Cluster
from solution.compress.decompose import Decompose
from solution.compress.fold_norms import FoldNorms
from solution.compress.group_penalty import GroupPenalty
from solution.compress.prune_channels import PruneChannels
from solution.compress.prune_layers import PruneLayers
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Convert, Quantize
from solution.contracts import InputError, Step
from solution.settings import parse
from solution.train.autoencode import Autoencode
from solution.train.distill import Distill
from solution.train.pretrain import Pretrain
from solution.train.step import Train

STEPS: dict[str, type[Step]] = {
    "prune_channels": PruneChannels,
    "prune_layers": PruneLayers,
    "prune_weights": PruneWeights,
    "decompose": Decompose,
    "cluster": Cluster,
    "quantize": Quantize,
    "convert": Convert,
    "fold_norms": FoldNorms,
    "group_penalty": GroupPenalty,
    "train": Train,
    "distill": Distill,
    "pretrain": Pretrain,
    "autoencode": Autoencode,
}


def step_from(text: str) -> Step:
    """The step that `text` names, with its settings: "prune_layers units=2,5,2 ranking=last".

    `InputError` that lists the right names for an unknown step or field, and the type wanted for a wrong value.
    """
    try:
        name, *settings = shlex.split(text) or [""]
    except ValueError as error:
        raise InputError(f"step {text!r} cannot be read: {error}") from error
    if name not in STEPS:
        raise InputError(f"there is no step {name!r}{_hint(name, STEPS)}; there are: {', '.join(STEPS)}")
    return STEPS[name](**dict(_setting(name, setting) for setting in settings))


def _setting(name: str, setting: str) -> tuple[str, Any]:
    field, equals, value = setting.partition("=")
    types = {field.name: field.type for field in dataclasses.fields(STEPS[name])}
    if not equals:
        raise InputError(f"step {name} takes FIELD=VALUE, got {setting!r}; its fields are: {', '.join(types)}")
    if field not in types:
        raise InputError(f"{name} has no field {field!r}{_hint(field, types)}; it has: {', '.join(types)}")
    try:
        return field, parse(value, typing.get_type_hints(STEPS[name])[field])
    except TypeError as error:
        raise InputError(f"{name}.{field} takes {types[field]}, got {value!r}") from error


def _hint(name: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
