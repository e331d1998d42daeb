"""Weights that are more than a plain tensor (kept zeros, codebooks, quantizers), and the layers that have weights.

Such weights are parametrizations of PyTorch on ordinary layers, so that cost, audit and export still see the layers.
A step that has to reshape one folds it first to its plain values: zeros stay zeros, and clustered values stay among the
values of their codebook, but a training after that may move them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from solution.contracts import InputError

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def is_parametrized(module: nn.Module) -> bool:
    """Whether a tensor of `module` itself is computed from others."""
    return parametrize.is_parametrized(module)


def materialize(module: nn.Module) -> nn.Module:
    """Replace every parametrized tensor of `module` itself by its plain values, in place. Returns `module`."""
    if not is_parametrized(module):
        return module
    # PyTorch takes the tensor's property off the class, which copies of the module share: they would lose it too.
    kind = type(module)
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)
    for name in list(module.parametrizations):
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        getattr(module, name).grad = None  # a gradient of the codebook would not have the weight's shape
    return module


def materialize_all(model: nn.Module) -> nn.Module:
    """`fold` every module of `model`, in place. Returns `model`."""
    for module in list(model.modules()):
        materialize(module)
    return model


def materialized(model: nn.Module) -> nn.Module:
    """`model` itself when nothing in it is parametrized, else a folded copy."""
    return (
        materialize_all(copy.deepcopy(model)) if any(is_parametrized(module) for module in model.modules()) else model
    )


def layers_of(
    model: nn.Module, layers: tuple[str, ...], protect: tuple[str, ...]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Convolutions and linear layers whose path matches `layers`, in order; and those left alone, with the reason.

    layers, protect  glob patterns of paths. `InputError` for one that matches no layer: it is likely misspelt.
    """
    found = {path: module for path, module in model.named_modules() if isinstance(module, WEIGHTED)}
    for pattern in (*layers, *protect):
        if not any(fnmatch(path, pattern) for path in found):
            raise InputError(f"nothing matches {pattern!r}: {_known(found)}")
    wanted = {path: module for path, module in found.items() if _matches(path, layers)}
    left = {path: reason for path in wanted if (reason := _reason(model, path, protect))}
    return {path: module for path, module in wanted.items() if path not in left}, left


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _known(found: Iterable[str]) -> str:
    names = list(found)
    if not names:
        return "the net has no convolution and no linear layer"
    return f"the net's layers are {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"


def _reason(model: nn.Module, path: str, protect: tuple[str, ...]) -> str:
    if _matches(path, protect):
        return "protected"
    module = model.get_submodule(path)
    if is_parametrized(module):
        return ""
    owners = Counter(id(part._parameters.get("weight")) for part in model.modules())
    return "its weights are shared with another layer" if owners[id(module.weight)] > 1 else ""


def sound_weight(path: str, module: nn.Module) -> Tensor:
    """The values of the weight of the layer at `path`. `InputError` when some are NaN or infinite."""
    weight = module.weight.detach()
    if not bool(torch.isfinite(weight).all()):
        raise InputError(f"{path}.weight holds NaN or infinite values: load sound weights first")
    return weight


def layer_for(model: nn.Module, path: str, shape: Iterable[int]) -> nn.Module:
    """The layer at `path`, whose weight must have `shape`. `InputError` when the plan was made for another net."""
    shape = tuple(shape)
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"this plan was made for another net: there is no layer {path!r}") from error
    found = tuple(module.weight.shape) if isinstance(module, WEIGHTED) else type(module).__name__
    if found != shape:
        raise InputError(f"this plan was made for another net: the weight of {path} is {shape} there, here {found}")
    return module
