"""Which layers can be quantized, in the order in which they run, and why the others stay in float."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from solution.compress.parametrized import layers_of
from solution.evaluate.hooks import counted_class
from solution.evaluate.running import as_judged, images_for, run, while_hooked

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.PReLU)


@dataclass(frozen=True, kw_only=True)
class Layers:
    """paths: layers that can be quantized, in order of execution; kept: {layer or weight: why it stays in float}."""

    paths: tuple[str, ...]
    kept: dict[str, str]


def find_layers(model: nn.Module, example: Tensor, protect: tuple[str, ...] = ()) -> Layers:
    """Every convolution and linear layer of `model`, and what keeps some of them, or other weights, in float.

    protect: glob patterns of layers that stay as they are. `InputError` for one that matches no layer.
    """
    found, kept = layers_of(model, ("*",), protect)
    order = _executed(model, example)
    refused = {path: _refusal(module, path in order) for path, module in found.items()}
    kept |= {path: reason for path, reason in refused.items() if reason} | _foreign(model, {*found, *kept})
    return Layers(paths=tuple(sorted(found.keys() - kept.keys(), key=order.index)), kept=kept)


def channel_axis(module: nn.Module) -> int:
    """The axis of a layer's weight along which its outputs lie."""
    return 1 if issubclass(counted_class(module), TRANSPOSED) else 0


def is_depthwise(module: nn.Module) -> bool:
    """Whether every output of a layer comes from one input channel."""
    return getattr(module, "groups", 1) > 1 and module.groups == module.in_channels


def _executed(model: nn.Module, example: Tensor) -> list[str]:
    """Paths of modules in the order in which they are first called."""
    order: dict[str, None] = {}
    handles = [
        module.register_forward_hook(lambda *_, path=path: order.setdefault(path))
        for path, module in model.named_modules()
    ]
    with while_hooked(handles), as_judged(model):
        run(model, images_for(model, example[:1]))
    return list(order)


def _foreign(model: nn.Module, known: set[str]) -> dict[str, str]:
    """{weight of a module that multiplies by it, but is no layer that is known here: why it stays in float}."""
    return {
        name: f"a weight of {type(module).__name__}, which is neither a convolution nor a linear layer"
        for path, module in model.named_modules()
        if path not in known and "parametrizations" not in path.split(".") and not isinstance(module, _NORMS)
        for name, tensor in module.named_parameters(path, recurse=False)
        if tensor.dim() >= 2
    }


def _refusal(module: nn.Module, called: bool) -> str | None:
    if "weight" not in module._parameters and not parametrize.is_parametrized(module, "weight"):
        return "its weight is made anew at each call"
    if isinstance(module, TRANSPOSED) and module.groups > 1:
        return "its outputs do not lie along one axis of its weight"
    if not called:
        return "it is not called on the example, so its inputs cannot be seen"
    if not torch.isfinite(module.weight.detach()).all():
        return "its weight holds NaN or infinite values"
    return None


def shared_weights(model: nn.Module) -> set[str]:
    """Paths of modules whose weight is also another's."""
    weights = {path: id(module._parameters.get("weight")) for path, module in model.named_modules()}
    uses = Counter(weights.values())
    return {path for path, weight in weights.items() if uses[weight] > 1 and weight != id(None)}
