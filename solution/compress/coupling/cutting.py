"""Slicing: tensors lose the channels that go, modules learn their new sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from solution.compress.coupling.tracing import named_tensors

Cuts = Mapping[str, Iterable[tuple[int, int, Sequence[int]]]]
"""Tensor name -> ((axis, groups, kept indices), ...); an index of -1 makes a channel of zeros."""


def cut_tensors(model: nn.Module, cuts: Cuts) -> None:
    """Slice parameters and buffers of `model` in place, under every name that they have."""
    tensors = named_tensors(model)
    replaced = {}
    for name, places in cuts.items():
        old = tensors[name]
        new = old.detach()
        for axis, groups, kept in sorted(places, key=lambda place: place[0]):
            new = sliced(new, axis, groups, torch.tensor(kept, dtype=torch.long, device=old.device))
        is_parameter = isinstance(old, nn.Parameter)
        replaced[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                store[name] = replaced.get(id(tensor), tensor)


def sliced(tensor: Tensor, axis: int, groups: int, kept: Tensor) -> Tensor:
    """`kept` indices of `tensor` along `axis`.

    Along axis 1 of a grouped convolution every group has its own inputs: the indices count them one group after
    another, and rows (already cut) belong to groups in order.
    """
    if groups == 1 or axis == 0:
        return _taken(tensor, axis, kept)
    parts = zip(tensor.chunk(groups, 0), kept.view(groups, -1), range(groups), strict=True)
    width = tensor.shape[axis]
    return torch.cat([_taken(rows, axis, torch.where(own < 0, own, own - g * width)) for rows, own, g in parts])


def _taken(tensor: Tensor, axis: int, kept: Tensor) -> Tensor:
    taken = tensor.index_select(axis, kept.clamp(min=0))
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return taken.masked_fill((kept < 0).view(shape), 0)


def set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, object]]) -> None:
    """Set sizes that modules keep beside their tensors."""
    for path, values in attributes.items():
        module = model.get_submodule(path)
        for name, value in values.items():
            setattr(module, name, value)


def attributes_of(model: nn.Module) -> dict[str, dict[str, int | tuple[int, ...]]]:
    """The sizes that the tensors of each plain layer imply, where they differ from what the layer says."""
    changed = {}
    for path, module in model.named_modules():
        implied = _implied(module)
        values = {name: value for name, value in implied.items() if getattr(module, name, value) != value}
        if values:
            changed[path] = values
    return changed


def _implied(module: nn.Module) -> dict[str, int | tuple[int, ...]]:
    own = {**module._parameters, **module._buffers}
    weight = own.get("weight")
    if isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        return _implied_by_convolution(module, weight)
    if isinstance(module, nn.Linear) and weight is not None:
        return {"out_features": weight.shape[0], "in_features": weight.shape[1]}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and weight is not None:
        return {"normalized_shape": tuple(weight.shape)}
    if isinstance(module, nn.GroupNorm) and weight is not None:
        every = {"num_groups": len(weight)} if module.num_groups == module.num_channels else {}
        return {"num_channels": len(weight), **every}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": len(module.weight)}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        sized = weight if weight is not None else own.get("running_mean")
        return {} if sized is None else {"num_features": len(sized)}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": weight.shape[1]}
    return {}


def _implied_by_convolution(module: nn.modules.conv._ConvNd, weight: Tensor) -> dict[str, int]:
    """Depthwise convolutions have as many groups as channels; other groups stay."""
    depthwise = module.groups == module.in_channels > 1
    if depthwise:
        each = module.out_channels // module.in_channels
        num_inputs = weight.shape[0] if module.transposed else weight.shape[0] // each
        return {"in_channels": num_inputs, "out_channels": num_inputs * each, "groups": num_inputs}
    ours, theirs = weight.shape[0], weight.shape[1] * module.groups
    inputs, outputs = (ours, theirs) if module.transposed else (theirs, ours)
    return {"in_channels": inputs, "out_channels": outputs}
