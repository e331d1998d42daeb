"""A batch norm folded into the convolution before it: the same function, with a fourth of the norm's numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from solution.compress.quantization.codes import plain
from solution.compress.quantization.layers import channel_axis
from solution.compress.quantization.scales import along
from solution.contracts import InputError


def fold_norm(layer: nn.Module, norm: nn.Module) -> Tensor:
    """Fold `norm` into `layer`, whose tensors are plain, in place. Returns the factor of each channel, (C,).

    In eval mode, norm(layer(x)) = (weight * factor) x + (bias - mean) * factor + shift.
    """
    with torch.no_grad():
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        shift = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
        shift = shift * factor if norm.bias is None else shift * factor + norm.bias
        layer.weight.mul_(along(factor, channel_axis(layer), layer.weight.dim()))
    layer.bias = nn.Parameter(shift.detach().clone())
    return factor.detach()


def fold_norms(model: nn.Module, pairs: Mapping[str, str]) -> dict[str, Tensor]:
    """Fold each norm of `pairs` (norm -> layer), in place. Returns {layer: factor}.

    What the norm has besides, an activation in timm's nets, takes its place, or else an identity.
    """
    factors = {}
    for norm_path, layer_path in pairs.items():
        layer, norm = module_at(model, layer_path), module_at(model, norm_path)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            raise InputError(f"this plan was made for another net: {norm_path} is no batch norm")
        plain(layer)
        plain(norm)
        factors[layer_path] = fold_norm(layer, norm)
        parent, _, name = norm_path.rpartition(".")
        rest = list(norm.children())
        setattr(model.get_submodule(parent), name, nn.Sequential(*rest) if rest else nn.Identity())
    return factors


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module of this path. `InputError` when there is none."""
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"this plan was made for another net: there is no layer {path!r}") from error
