"""Copies of nets, whatever they keep of an earlier forward."""

from __future__ import annotations

import copy
from types import CellType, FunctionType, MethodType
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
    made = copy.deepcopy(model, memo)
    for module in made.modules():
        hooks = [value for name, value in vars(module).items() if name.endswith("_hooks") and isinstance(value, dict)]
        for functions in (vars(module), *hooks):
            functions.update({name: rebound(function, memo) for name, function in functions.items()
                              if isinstance(function, FunctionType | MethodType)})  # fmt: skip
    return made


def rebound(function: Any, memo: dict[int, Any]) -> Any:
    """A function or method, such as a hook, that holds the copies of what it held, which `copy.deepcopy` does not look
    into.

    memo  of the copy: id of an object -> its copy
    """
    if isinstance(function, MethodType):
        owner = memo.get(id(function.__self__), function.__self__)
        return MethodType(copy_held(function.__func__, memo), owner)
    try:
        held = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a name that was not given a value yet
        return function
    cells = tuple(CellType() for _ in held)
    made = FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
    memo[id(function)] = made  # functions may hold each other
    defaults, named = function.__defaults__ or (), function.__kwdefaults__ or {}
    before = [*held, *defaults, *named.values()]
    after = [copy_held(one, memo) for one in before]
    for cell, one in zip(cells, after, strict=False):
        cell.cell_contents = one
    made.__defaults__ = tuple(after[len(held) : len(held) + len(defaults)]) or None
    made.__kwdefaults__ = dict(zip(named, after[len(held) + len(defaults) :], strict=True)) or None
    if all(one is other or one is function for one, other in zip(before, after, strict=True)):
        memo[id(function)] = function
    return memo[id(function)]


def copy_held(value: Any, memo: dict[int, Any]) -> Any:
    """What stands for `value` in the copy."""
    if id(value) in memo:
        return memo[id(value)]
    holds = isinstance(value, FunctionType) or (isinstance(value, MethodType) and id(value.__self__) in memo)
    return rebound(value, memo) if holds else value


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
