"""The layers that have weights: which of them a step works on, in which order they run, along which axes they lie."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, cast

import torch
from torch import Tensor, nn

from solution.compress.parametrized import computed
from solution.contracts import Example, InputError
from solution.evaluate.cost import counted_class
from solution.graph import as_judged, observe, one_for, run

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.PReLU)


def layers_of(
    model: nn.Module, layers: tuple[str, ...], protect: tuple[str, ...]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Convolutions and linear layers whose path matches `layers`, in order; and those left alone, with the reason.

    layers, protect  glob patterns of paths. `InputError` for one that matches no layer: it is likely misspelt.
    """
    found = {path: module for path, module in model.named_modules() if isinstance(module, WEIGHTED)}
    for pattern in (*layers, *protect):
        if not any(fnmatch(path, pattern) for path in found):
            names = ", ".join(list(found)[:4]) + (" ..." if len(found) > 4 else "")
            known = f"the net's layers are {names}" if found else "the net has no convolution and no linear layer"
            raise InputError(f"nothing matches {pattern!r}: {known}")
    wanted = {path: module for path, module in found.items() if any(fnmatch(path, pattern) for pattern in layers)}
    left: dict[str, str] = {}
    shared = shared_weights(model)
    for path in wanted:
        if any(fnmatch(path, pattern) for pattern in protect):
            left[path] = "protected"
        elif path in shared:
            left[path] = "its weights are shared with another layer"
    chosen: dict[str, nn.Module] = {path: module for path, module in wanted.items() if path not in left}
    return chosen, left | _other_weights(model, found) if "*" in layers else left


def shared_weights(model: nn.Module) -> set[str]:
    """Paths of modules whose weight is also another's."""
    weights = {path: id(module._parameters.get("weight")) for path, module in model.named_modules()}
    uses = Counter(weights.values())
    return {path for path, weight in weights.items() if uses[weight] > 1 and weight != id(None)}


def sound_weight(path: str, module: nn.Module) -> Tensor:
    """The values of the weight of the layer at `path`. `InputError` when some are NaN or infinite."""
    weight = cast(Tensor, module.weight).detach()
    if not bool(torch.isfinite(weight).all()):
        raise InputError(f"{path}.weight holds NaN or infinite values: load sound weights first")
    return weight


def module_at(model: nn.Module, path: str, name: str = "") -> nn.Module:
    """The module at `path`. `InputError` when there is none; `name` is what the message calls it."""
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"this plan was made for another net: there is no {name or f'layer {path!r}'}") from error


def layer_for(model: nn.Module, path: str, shape: Iterable[int]) -> nn.Module:
    """The layer at `path`, whose weight must have `shape`. `InputError` when the plan was made for another net."""
    shape, module = tuple(shape), module_at(model, path)
    found = tuple(module.weight.shape) if isinstance(module, WEIGHTED) else type(module).__name__
    if found != shape:
        raise InputError(f"this plan was made for another net: the weight of {path} is {shape} there, here {found}")
    return module


def convolutions() -> tuple[type[nn.Module], ...]:
    """Classes that convolve with their weight as it is, after a padding."""
    return (*CONVOLUTIONS, *of_timm("Conv2dSame"))


def of_timm(name: str) -> tuple[Any, ...]:
    """The class of timm of this name; none when timm is not loaded."""
    if "timm" not in sys.modules:  # then no module can be of its classes, and its import takes seconds
        return ()
    import timm.layers

    return (getattr(timm.layers, name),)


def note_own_forwards(model: nn.Module, paths: Iterable[str], log: Callable[[str], None]) -> None:
    """A line for the user that names layers at `paths` whose class has a forward of its own, if there are any."""
    layers = {path: counted_class(model.get_submodule(path)) for path in paths}
    own = {path: kind for path, kind in layers.items() if kind not in convolutions() and _is_own(kind)}
    if own:
        kinds = ", ".join(sorted({kind.__name__ for kind in own.values()}))
        names = ", ".join(list(own)[:3]) + " ..." * (len(own) > 3)
        log(f"{names}: {kinds} may compute another weight in its forward; the zeros are those of the stored one")


def _is_own(kind: type[nn.Module]) -> bool:
    return not kind.forward.__module__.startswith("torch.")


def channel_axis(module: nn.Module) -> int:
    """The axis of a layer's weight along which its outputs lie."""
    return 1 if issubclass(counted_class(module), TRANSPOSED) else 0


def along(values: Tensor, axis: int, dims: int) -> Tensor:
    """(C,) to a shape that multiplies channel `axis` of a tensor with `dims` dimensions."""
    shape = [1] * dims
    shape[axis] = -1
    return values.view(shape)


def is_depthwise(module: nn.Module) -> bool:
    """Whether every output of a layer comes from one input channel."""
    return getattr(module, "groups", 1) > 1 and module.groups == module.in_channels


@dataclass(frozen=True, kw_only=True)
class Layers:
    """paths: layers that can be quantized, in order of execution; kept: {layer or weight: why it stays in float}."""

    paths: tuple[str, ...]
    kept: dict[str, str]


def find_layers(model: nn.Module, example: Example, protect: tuple[str, ...] = ()) -> Layers:
    """Every convolution and linear layer of `model`, and what keeps some of them, or other weights, in float.

    protect: glob patterns of layers that stay as they are. `InputError` for one that matches no layer.
    """
    found, kept = layers_of(model, ("*",), protect)
    order = _executed(model, example)
    refused = {path: _refusal(module, path in order) for path, module in found.items()}
    kept |= {path: reason for path, reason in refused.items() if reason}
    return Layers(paths=tuple(sorted(found.keys() - kept.keys(), key=order.index)), kept=kept)


def _executed(model: nn.Module, example: Example) -> list[str]:
    """Paths of modules in the order in which they are first called."""
    order: dict[str, None] = {}
    modules = dict(model.named_modules())
    with observe(modules, after=lambda path, *_: order.setdefault(path)), as_judged(model):
        run(model, one_for(model, example))
    return list(order)


def _refusal(module: nn.Module, called: bool) -> str | None:
    if "weight" not in module._parameters and "weight" not in computed(module):
        return "its weight is made anew at each call"
    if isinstance(module, TRANSPOSED) and module.groups > 1:
        return "its outputs do not lie along one axis of its weight"
    if not called:
        return "it is not called on the example, so its inputs cannot be seen"
    if not torch.isfinite(cast(Tensor, module.weight).detach()).all():
        return "its weight holds NaN or infinite values"
    return None


def _other_weights(model: nn.Module, known: Collection[str]) -> dict[str, str]:
    """{weight of a module that multiplies by it, but is no layer that is known here: why it stays as it is}."""
    return {
        name: f"a weight of {type(module).__name__}, which is neither a convolution nor a linear layer"
        for path, module in model.named_modules()
        if path not in known and "parametrizations" not in path.split(".") and not isinstance(module, _NORMS)
        for name, tensor in module.named_parameters(path, recurse=False)
        if tensor.dim() >= 2
    }


def left_alone(left: Mapping[str, str]) -> list[str]:
    """A line for each layer that a step leaves as it is, with the reason."""
    return [f"{path}: left as it is, {reason}" for path, reason in left.items()]


def savings(saves: Mapping[str, tuple[int, int]]) -> list[str]:
    """A line for each currency: before, after, and the change in percent."""
    return [f"{name}: {before:,} -> {after:,} ({after / before - 1:+.1%})" for name, (before, after) in saves.items()]
