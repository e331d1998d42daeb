"""Sizes that a module's forward reads from attributes of its own, which no tensor shape implies.

The one place with knowledge of particular model families. A module that is not here is still cut wherever its forward
allows it: what does not run, or does not couple as before, is kept whole.
"""

from __future__ import annotations

from collections.abc import Mapping

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
        **_split_sizes(module, prefix, after),
        **_half_width(module, prefix, before, after),
    }


def _attention_heads(
    module: nn.Module, prefix: str, before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> dict[str, int | Shape]:
    """Attention with one projection `qkv`, or `q`: as many heads as whole heads are left of it."""
    heads = getattr(module, "num_heads", None)
    names = [f"{prefix}{name}.weight" for name in ("qkv", "q", "q_proj")]
    name = next((name for name in names if name in before), None)
    if not isinstance(heads, int) or name is None:
        return {}
    old, new = before[name][0], after[name][0]
    if heads * new % old:
        return {}
    sizes = {name: getattr(module, name, None) for name in ("attn_dim", "all_head_dim", "inner_dim")}
    return {
        "num_heads": heads * new // old,
        **{name: size * new // old for name, size in sizes.items() if isinstance(size, int)},
    }


def _split_sizes(module: nn.Module, prefix: str, after: Mapping[str, Shape]) -> dict[str, int | Shape]:
    """Convolutions of several kernel sizes, each on its part of the channels (timm's MixedConv2d)."""
    splits, children = getattr(module, "splits", None), list(module.named_children())
    if splits is None or len(splits) != len(children) or not all(isinstance(c, nn.Conv2d) for _, c in children):
        return {}
    shapes = [after[f"{prefix}{name}.weight"] for name, _ in children]
    depthwise = [child.groups == child.in_channels > 1 for _, child in children]
    return {"splits": tuple(shape[0 if own else 1] for shape, own in zip(shapes, depthwise, strict=True))}


def _half_width(
    module: nn.Module, prefix: str, before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> dict[str, int | Shape]:
    """Blocks that split what `cv1` makes into two halves of `c` channels (the C2 family of YOLO)."""
    name, half = f"{prefix}cv1.conv.weight", getattr(module, "c", None)
    if not isinstance(half, int) or name not in before or before[name][0] != 2 * half:
        return {}
    return {"c": after[name][0] // 2}
