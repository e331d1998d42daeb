"""All that the suite uses of the project: one cut, and the choice that it made, as plain values."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

import solution as fw
from solution.contracts import plans_of

Refused = fw.InputError
"""How the project says that it will not cut a net."""

Choice = dict[str, tuple[tuple[int, int, tuple[int, ...]], ...]]
"""Parameter or buffer -> (axis, groups, indices that stay), ..."""


@dataclass(frozen=True)
class Cut:
    """A cut net, and which channels of the full one are left in it."""

    net: nn.Module
    choice: Choice


def cut(net: nn.Module, example: Any, ratio: float, importance: str) -> Cut:
    """Take `ratio` of the channels out of `net`, as a user would."""
    small = fw.PruneChannels(ratio=ratio, importance=importance)(net, example)
    plan = plans_of(small)[-1]
    choice = {
        name: tuple((axis, groups, plan.selections[number]) for axis, groups, number in places)
        for name, places in plan.tensors.items()
    }
    return Cut(net=small, choice=choice)


def call(net: nn.Module, example: Any) -> Any:
    """The forward on `example`: a tuple holds positional inputs, a dict named ones where the net has such names."""
    if isinstance(example, tuple):
        return net(*example)
    if isinstance(example, dict):
        named = all(name in inspect.signature(net.forward).parameters for name in example)
        return net(**example) if named else net(example)
    return net(example)
