"""Sizes that a module's forward reads from attributes of its own, which no tensor shape implies.

The one place with knowledge of particular model families. A module that is not here is still cut wherever its forward
allows it: what does not run, or does not couple as before, is kept whole.
"""

from __future__ import annotations

from torch import nn

Shapes = dict[str, tuple[int, ...]]


def adapted_attributes(model: nn.Module, shapes: Shapes) -> dict[str, dict[str, int]]:
    """Attributes to change after a cut. `shapes` are those of the tensors before it."""
    changed = {}
    for path, module in model.named_modules():
        values = _attention_heads(path, module, shapes)
        if values:
            changed[path] = values
    return changed


def _attention_heads(path: str, module: nn.Module, shapes: Shapes) -> dict[str, int]:
    """Attention with one projection `qkv`, or `q`: as many heads as whole heads are left of it."""
    heads = getattr(module, "num_heads", None)
    projection = next((name for name in ("qkv", "q", "q_proj") if isinstance(getattr(module, name, None), nn.Linear)), None)
    if not isinstance(heads, int) or projection is None:
        return {}
    before = shapes[f"{path}.{projection}.weight" if path else f"{projection}.weight"][0]
    after = getattr(module, projection).weight.shape[0]
    if before == after or heads * after % before:
        return {}
    left = {"num_heads": heads * after // before}
    for name in ("attn_dim", "all_head_dim", "inner_dim"):
        size = getattr(module, name, None)
        if isinstance(size, int):
            left[name] = size * after // before
    return left
