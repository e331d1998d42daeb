"""The sizes that modules keep beside their tensors: out_channels, groups, num_features, numbers of heads.

Those of plain layers follow from their tensors. For modules whose forward reads sizes of its own, `adapted` is the one
place with knowledge of particular model families. A module that is not there is still cut wherever its forward allows
it: what does not run, or does not couple as before, is kept whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

Shape = tuple[int, ...]


def adapted(
    module: nn.Module, prefix: str, before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> dict[str, int | Shape]:
    """Attributes of `module` once tensors have gone from shapes `before` to `after`.

    prefix  the module's path with a dot, which its tensors' names begin with
    """
    return {
        **_attention_heads(module, prefix, before, after),
        **_packed_projection(module, prefix, after),
        **_split_sizes(module, prefix, after),
        **_half_width(module, prefix, before, after),
        **_gated_halves(module, prefix, after),
        **_position_bias(module, prefix, after),
        **_normed_groups(module, prefix, before, after),
    }


HEADS = {
    "num_heads": ("qkv", "q", "q_proj", "q_proj.linear", "qkv.conv", "qkv.linear", "kv.linear"),
    "num_kv_heads": ("k_proj", "k_proj.linear"),
}
"""A number of heads -> the layers that may make them."""
OVER_HEADS = ("attn_dim", "all_head_dim", "inner_dim", "key_attn_dim", "val_attn_dim")
"""Widths that are a number of channels for each of `num_heads`."""


def _attention_heads(
    module: Any, prefix: str, before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> dict[str, int | Shape]:
    """Attention with one projection `qkv`, or several: as many heads as whole heads are left of it."""
    changed: dict[str, int | Shape] = {}
    for attribute, layers in HEADS.items():
        heads = getattr(module, attribute, None)
        name = next((f"{prefix}{layer}.weight" for layer in layers if f"{prefix}{layer}.weight" in before), None)
        if isinstance(heads, int) and name is not None and heads * after[name][0] % before[name][0] == 0:
            changed[attribute] = heads * after[name][0] // before[name][0]
    if isinstance(new := changed.get("num_heads"), int):
        sizes = {name: getattr(module, name, None) for name in OVER_HEADS}
        changed |= {name: size * new // module.num_heads for name, size in sizes.items() if isinstance(size, int)}
    return changed


def _packed_projection(module: nn.Module, prefix: str, after: Mapping[str, Shape]) -> dict[str, int | Shape]:
    """PyTorch's own attention: as many heads as are left, of the size that they had."""
    packed = after.get(f"{prefix}in_proj_weight")
    if not isinstance(module, nn.MultiheadAttention) or packed is None:
        return {}
    rows, width = packed
    return {"num_heads": rows // 3 // module.head_dim, **dict.fromkeys(("embed_dim", "kdim", "vdim"), width)}


def _split_sizes(module: Any, prefix: str, after: Mapping[str, Shape]) -> dict[str, int | Shape]:
    """Convolutions of several kernel sizes, each on its part of the channels (timm's MixedConv2d)."""
    splits, children = getattr(module, "splits", None), list(module.named_children())
    if splits is None or len(splits) != len(children) or not all(isinstance(c, nn.Conv2d) for _, c in children):
        return {}
    shapes = [after[f"{prefix}{name}.weight"] for name, _ in children]
    depthwise = [child.groups == child.in_channels > 1 for _, child in children]
    return {"splits": tuple(shape[0 if own else 1] for shape, own in zip(shapes, depthwise, strict=True))}


HALVES = {"c": ("cv1.conv.weight", 2), "expand_chs": ("conv_exp.conv.weight", 1)}
"""Attribute by which a forward splits channels into two equal halves -> what makes them, and its multiple of it.

The C2 family of YOLO, and the cross stages of timm's CSPNets.
"""


def _half_width(
    module: nn.Module, prefix: str, before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> dict[str, int | Shape]:
    for attribute, (name, times) in HALVES.items():
        size, path = getattr(module, attribute, None), prefix + name
        if isinstance(size, int) and path in before and before[path][0] == times * size:
            return {attribute: after[path][0] // times}
    return {}


def _gated_halves(module: nn.Module, prefix: str, after: Mapping[str, Shape]) -> dict[str, int | Shape]:
    """A gate, and what it gates, of which a part is convolved (timm's GatedConvBlock)."""
    if len(getattr(module, "split_indices", ())) != 3:
        return {}
    hidden, convolved = after[f"{prefix}fc1.weight"][0] // 2, after[f"{prefix}conv.weight"][0]
    return {"split_indices": (hidden, hidden - convolved, convolved)}


def _position_bias(module: nn.Module, prefix: str, after: Mapping[str, Shape]) -> dict[str, int | Shape]:
    """What relative positions add to each head of an attention, from a table or a small net (timm's RelPos layers)."""
    shape = getattr(module, "bias_shape", None)
    if not isinstance(shape, tuple):
        return {}
    table, net = after.get(f"{prefix}relative_position_bias_table"), after.get(f"{prefix}mlp.fc2.weight")
    if table is not None:
        heads = table[-1] if len(table) == 2 else table[0]
    elif net is not None:
        heads = net[0]
    else:
        return {}
    new = table if table is not None and len(table) == len(shape) else (*shape[:-1], heads)
    return {"bias_shape": new, **({"num_heads": heads} if hasattr(module, "num_heads") else {})}


def _normed_groups(
    module: nn.Module, prefix: str, before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> dict[str, int | Shape]:
    """Norms that view channels as groups by hand (timm's EvoNorms): as many as whole groups are left.

    A plain group norm is told apart by keeping its groups and making them smaller.
    """
    groups, name = getattr(module, "groups", None), f"{prefix}weight"
    if not isinstance(groups, int) or isinstance(module, nn.modules.conv._ConvNd) or len(before.get(name, ())) != 1:
        return {}
    (channels,), (left,) = before[name], after[name]
    return {"groups": left * groups // channels} if left * groups % channels == 0 else {}


def alike(module: nn.Module, prefix: str) -> tuple[str, ...]:
    """Weights of `module` whose output channels must shrink in one proportion, in ways that no channel id shows.

    Two equal halves, attention that views its result in the shape of its input, and attention that takes its input's
    width over its heads as the size of a head (torchvision's Swin).
    """
    for attribute, (name, _) in HALVES.items():
        if isinstance(getattr(module, attribute, None), int):
            return (prefix + name,)
    if not hasattr(module, "num_heads"):
        return ()
    if isinstance(module, nn.MultiheadAttention):
        return f"{prefix}in_proj_weight", f"{prefix}out_proj.weight"
    layers = ("qkv", "proj") if hasattr(module, "shift_size") else ("qkv.conv", "proj.conv")
    return tuple(f"{prefix}{layer}.weight" for layer in layers)


Attributes = dict[str, dict[str, int | Shape]]
"""Module -> {attribute: value}."""


def all_shapes(model: nn.Module) -> dict[str, Shape]:
    """Shapes of parameters and buffers, under every name that they have."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tuple(tensor.shape) for name, tensor in tensors}


Place = tuple[str, int]
"""Tensor of a module, and an axis of it."""

Stored = dict[tuple[type, str], tuple[Place, ...]]
"""(Class of a module, attribute) -> the axis whose length it is in proportion to, less the lengths of further axes."""


def attributes_after(model: nn.Module, shapes: Mapping[str, Shape], learned: Stored | None = None) -> Attributes:
    """What must be set on the modules of `model` once its tensors have `shapes`; `learned` by `stored`."""
    before, changed = all_shapes(model), {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        own = {name: shapes[prefix + name] for name in _own_names(module)}
        values = {**implied(module, own), **adapted(module, prefix, before, shapes)}
        for (kind, name), places in (learned or {}).items():
            if type(module) is kind and all(prefix + tensor in before for tensor, _ in places):
                old, new = (_length(places, prefix, every) for every in (before, shapes))
                if (scaled := _in_proportion(getattr(module, name, None), old, new)) is not None:
                    values.setdefault(name, scaled)
        values = {name: value for name, value in values.items() if _differs(getattr(module, name, value), value)}
        if values:
            changed[path] = values
    return changed


def _length(places: tuple[Place, ...], prefix: str, shapes: Mapping[str, Shape]) -> int:
    first, *further = (shapes[prefix + tensor][axis] for tensor, axis in places)
    return first - sum(further)


def _in_proportion(value: object, old: int, new: int) -> int | Shape | None:
    """`value`, a number or several, once what it goes along with went from `old` to `new`; the last takes the rest."""
    if old <= 0 or new <= 0:
        return None
    if isinstance(value, int):
        return value * new // old if value * new % old == 0 else None
    if not isinstance(value, list | tuple) or sum(value) * new % old:
        return None
    first = [one * new // old for one in value[:-1]]
    return (*first, sum(value) * new // old - sum(first))


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
    if isinstance(module, nn.RNNBase):
        return {"input_size": shapes["weight_ih_l0"][1]}
    if isinstance(module, nn.RNNCellBase):
        return {"input_size": shapes["weight_ih"][1]}
    if weight is None:
        return {}
    if isinstance(module, nn.Bilinear):
        return {"out_features": weight[0], "in1_features": weight[1], "in2_features": weight[2]}
    if isinstance(module, nn.modules.conv._ConvNd):
        return {**_implied_by_convolution(module, weight)}
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
