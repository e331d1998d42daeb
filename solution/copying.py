"""Copies of nets, whatever they keep of an earlier forward."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy. Weights that a hook computes, and what a forward kept in the module or in a list or dictionary of
    it, carry a gradient's history, which `copy.deepcopy` refuses to copy: their values are copied without it.

    memo  id of an object -> what stands in its place in the copy, as for `copy.deepcopy`
    """
    memo = {} if memo is None else memo
    waiting: list[Any] = [vars(module) for module in model.modules()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list | tuple | set):
            if id(value) not in seen:  # a list may hold itself
                seen.add(id(value))
                waiting += value.values() if isinstance(value, dict) else value
        elif getattr(value, "is_leaf", True) is False:
            memo.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(model, memo)


def forget_computed(model: nn.Module) -> nn.Module:
    """Let modules drop what they keep of an earlier forward, such as biases of an attention, as they do when training
    begins. Returns the model, its modes as they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        if type(module).train.__module__ != "torch.nn.modules.module":
            module.train()
    for module, training in modes:
        module.training = training
    return model
