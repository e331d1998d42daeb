"""Deep copies of nets, at a fraction of the time that `copy.deepcopy` takes over their bookkeeping.

A module's dictionary holds a few tensors and modules among a dozen empty tables of hooks, numbers and names. Those are
copied here one by one; whatever is of another kind, or defines itself how it is copied, is left to `copy.deepcopy`.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_PLAIN = frozenset((int, float, bool, str, bytes, complex, type(None), type, type(lambda: None), type(len)))
_OWN_WAYS = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__")


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy. Weights that a hook computes carry a gradient's history, which `copy.deepcopy` refuses to copy.

    memo  id of an object -> what stands in its place in the copy, as for `copy.deepcopy`
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for value in vars(module).values():
            if getattr(value, "is_leaf", True) is False:
                memo.setdefault(id(value), value.detach().clone())
    return _copied(model, memo)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict or kind is OrderedDict:
        made = memo[id(value)] = kind()
        for key, item in value.items():
            made[key if type(key) in _PLAIN else _copied(key, memo)] = _copied(item, memo)
        return made
    if kind in (tuple, set, list) and all(type(item) in _PLAIN for item in value):
        return value if kind is tuple else memo.setdefault(id(value), value.copy())
    if not hasattr(kind, "register_forward_hook") or any(
        getattr(kind, way, None) is not getattr(object, way, None) for way in _OWN_WAYS
    ):
        return copy.deepcopy(value, memo)
    module = memo[id(value)] = object.__new__(kind)
    module.__setstate__(_copied(vars(value), memo))
    return module


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
