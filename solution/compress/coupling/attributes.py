"""The sizes that plain layers keep beside their tensors: out_channels, groups, num_features and their like."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from solution.compress.coupling.adapters import adapted

Shape = tuple[int, ...]
Attributes = dict[str, dict[str, int | Shape]]
"""Module -> {attribute: value}."""


def all_shapes(model: nn.Module) -> dict[str, Shape]:
    """Shapes of parameters and buffers, under every name that they have."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def attributes_after(model: nn.Module, shapes: Mapping[str, Shape]) -> Attributes:
    """What must be set on the modules of `model` once its tensors have `shapes`."""
    before, changed = all_shapes(model), {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        own = {name: shapes[prefix + name] for name in _own_names(module)}
        values = {**implied(module, own), **adapted(module, prefix, before, shapes)}
        values = {name: value for name, value in values.items() if _differs(getattr(module, name, value), value)}
        if values:
            changed[path] = values
    return changed


def _differs(old: object, new: object) -> bool:
    return (tuple(old) if isinstance(old, list) else old) != new


def _own_names(module: nn.Module) -> list[str]:
    return [name for store in (module._parameters, module._buffers) for name, t in store.items() if t is not None]


def set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, object]]) -> None:
    """Set sizes that modules keep beside their tensors."""
    for path, values in attributes.items():
        module = model.get_submodule(path)
        for name, value in values.items():
            setattr(module, name, value)


def implied(module: nn.Module, shapes: Mapping[str, Shape]) -> dict[str, int | Shape]:
    """The sizes of a plain layer whose own tensors have `shapes`. Nothing for other modules."""
    weight = shapes.get("weight")
    if isinstance(module, nn.modules.batchnorm._NormBase):
        sized = weight or shapes.get("running_mean")
        return {"num_features": sized[0]} if sized else {}
    if weight is None:
        return {}
    if isinstance(module, nn.modules.conv._ConvNd):
        return _implied_by_convolution(module, weight)
    if isinstance(module, nn.Linear):
        return {"out_features": weight[0], "in_features": weight[1]}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return {"normalized_shape": weight}
    if isinstance(module, nn.GroupNorm):
        every = {"num_groups": weight[0]} if module.num_groups == module.num_channels else {}
        return {"num_channels": weight[0], **every}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": weight[0]}
    return {"embedding_dim": weight[1]} if isinstance(module, nn.Embedding) else {}


def _implied_by_convolution(module: nn.modules.conv._ConvNd, weight: Shape) -> dict[str, int]:
    """Depthwise convolutions have as many groups as channels; other groups stay."""
    if module.groups == module.in_channels > 1:
        each = module.out_channels // module.in_channels
        num_inputs = weight[0] if module.transposed else weight[0] // each
        return {"in_channels": num_inputs, "out_channels": num_inputs * each, "groups": num_inputs}
    ours, theirs = weight[0], weight[1] * module.groups
    inputs, outputs = (ours, theirs) if module.transposed else (theirs, ours)
    return {"in_channels": inputs, "out_channels": outputs}
