"""What a net of the suite is, and how its example is spelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Ids:
    """An example of whole numbers below `below`, of shape `shape`: tokens, nodes, positions."""

    shape: tuple[int, ...]
    below: int


@dataclass(frozen=True)
class Floats:
    """An example of random numbers in another type than float32."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class UserNet:
    """One net as a user would write it.

    name     unique in the suite
    build    () -> the net, randomly initialized
    example  the shape of its input; `Ids` for whole numbers, `Floats` for other types; a tuple, list or dict of those
             for several inputs
    tags     what is special about it
    cuttable whether a practitioner would expect that channels can go at all
    """

    name: str
    build: Callable[[], nn.Module]
    example: Any
    tags: tuple[str, ...] = ()
    cuttable: bool = True


def nets(group: str, *entries: tuple[Any, ...]) -> tuple[UserNet, ...]:
    """Entries (build, example, *tags) of one group; a tag "uncuttable" says that nothing can be expected to go."""
    return tuple(
        UserNet(
            name=f"{group}.{build.__name__}",
            build=build,
            example=example,
            tags=tuple(tags),
            cuttable="uncuttable" not in tags,
        )
        for build, example, *tags in entries
    )


def example_of(shape: Any, generator: torch.Generator) -> Any:
    """Random inputs in the form that `shape` spells."""
    if isinstance(shape, Ids):
        return torch.randint(0, shape.below, shape.shape, generator=generator)
    if isinstance(shape, Floats):
        return torch.randn(shape.shape, generator=generator).to(shape.dtype)
    if isinstance(shape, dict):
        return {name: example_of(part, generator) for name, part in shape.items()}
    if shape and not isinstance(shape[0], int):
        return type(shape)(example_of(part, generator) for part in shape)
    return torch.randn(shape, generator=generator)
