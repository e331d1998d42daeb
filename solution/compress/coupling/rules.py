"""What each call of a graph does to channel ids: the table of rules, and the rules for calls that mix elements."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from solution.compress.coupling import rules_layers as layers
from solution.compress.coupling import rules_movement as movement
from solution.compress.coupling.ids import KEPT, NEUTRAL, slim, uniform, varies
from solution.compress.coupling.walk import OpCall, Rule, Weight


def apply_rule(call: OpCall) -> Any:
    """The ids of what `call` returns."""
    if call.result is None:
        return None
    known = RULES.get(call.name)
    if known is None and (torch.Tag.pointwise in call.op.tags or not call.tensors()):
        known = pointwise
    result = (known or layers.unknown)(call)
    return _checked_in_place(call, result)


def _checked_in_place(call: OpCall, result: Any) -> Any:
    """Channels written into a part of a blank tensor stay: later readers of that tensor would not see them."""
    in_place = call.op._schema.is_mutable and isinstance(call["self"], Tensor) and call.result._is_view()
    if in_place and isinstance(result, Tensor) and bool((call["self"].reshape(-1)[:1] == NEUTRAL).all()):
        call.ledger.keep(result, "it is written into a part of a tensor")
    return result


def pointwise(call: OpCall) -> Any:
    """Element by element: operands that meet are tied."""
    if not isinstance(call.result, torch.Tensor):
        return layers.unknown(call) if call.tensors() else None
    return call.ledger.meet(call.tensors(), call.shape, call.name)


def neutral(call: OpCall) -> Tensor:
    """A new tensor that takes only its shape from another."""
    return uniform(NEUTRAL, call.shape)


def numbered(call: OpCall) -> Tensor:
    """A new tensor of values that depend on where they stand: channels that meet it stay."""
    return uniform(KEPT if call.result.numel() > 1 else NEUTRAL, call.shape)


def same(call: OpCall) -> Tensor:
    """Ids pass through (the other arguments are masks or types)."""
    ids = call.ids("self") if call["self"] is not None else call.ids("input")
    return ids.expand(call.shape)


def softmax(call: OpCall) -> Tensor:
    """Everything along `dim` depends on everything else there."""
    return call.ledger.collapse(call.ids("self"), [call["dim"] % len(call.shape)])


def reduction(call: OpCall) -> Any:
    """Sum, mean, maximum, norm: what is reduced goes together."""
    if "other" in call.arguments:
        return pointwise(call)
    ids = call.ids("self")
    asked = call["dim"] if "dim" in call.arguments else None
    dims = [asked] if isinstance(asked, int) else list(asked or range(ids.ndim))
    dims = [dim % max(1, ids.ndim) for dim in dims]
    single = isinstance(call.result, torch.Tensor)
    shape = tuple((call.result if single else call.result[0]).shape)
    result = movement.restored(call.ledger, ids, dims, shape, bool(call["keepdim"]))
    return result if single else [result for _ in call.result]


def pooling(call: OpCall) -> Any:
    """Pooling, resizing, sampling: channels stay what they are, positions mix."""
    ids = call.ids("self") if "self" in call.arguments else call.ids("input")
    spatial = int(re.search(r"([123])d", call.name + "2d").group(1))
    result = call.result if isinstance(call.result, torch.Tensor) else call.result[0]
    dims = range(ids.ndim - spatial, ids.ndim)
    ids = call.ledger.collapse(ids, dims)
    for dim in dims:
        ids = ids.narrow(dim, 0, 1)
    ids = ids.expand(result.shape)
    return ids if result is call.result else [ids for _ in call.result]


def matmul(call: OpCall) -> Any:
    """A product of two activations (..., n, k) and (..., k, m), or of an activation and a weight."""
    left, right = (call.ids("self"), call["other"] if "other" in call.arguments else call["mat2"])
    if isinstance(right, Weight) and len(right.shape) == 2:
        stored = Weight(name=right.name, shape=right.shape, turned=not right.turned)
        return layers.dense(call, left, stored, None)
    right = call.ids("other") if "other" in call.arguments else call.ids("mat2")
    if min(left.ndim, right.ndim) < 2:
        return layers.unknown(call)
    batch = any(varies(side, dim) for side in (left, right) for dim in range(side.ndim - 2))
    inner = varies(left, -1) or varies(right, -2)
    if batch or inner or (varies(left, -2) and varies(right, -1)) or _headed(left, right):
        return heads(call, [left, right])
    side = left.narrow(-1, 0, 1) if varies(left, -2) else right.narrow(-2, 0, 1)
    return side.expand(call.shape)


def _headed(left: Tensor, right: Tensor) -> bool:
    """Whether both (batch, heads, n, k) hold channels: with one head left they must be tied as with many."""
    return min(left.ndim, right.ndim) > 3 and all(int(slim(ids).max()) > KEPT for ids in (left, right))


def heads(call: OpCall, operands: list[Tensor]) -> Tensor:
    """Attention: everything of one batch element (a head) goes together; heads are apart from each other."""
    tied = [call.ledger.collapse(ids, [ids.ndim - 1, ids.ndim - 2])[..., :1, :1] for ids in operands]
    shape = (*call.shape[:-2], 1, 1)
    return call.ledger.meet(tied, shape, "attention").expand(call.shape)


def attention(call: OpCall) -> Any:
    """Scaled dot-product attention on (..., positions, channels)."""
    parts = [call.ids(name) for name in ("query", "key", "value")]
    return heads(call, parts + ([call.ids("attn_mask")] if call["attn_mask"] is not None else []))


def gated(call: OpCall) -> Tensor:
    """Gated linear unit: the two halves along `dim` meet."""
    halves = call.ids("self").chunk(2, call["dim"])
    return call.ledger.meet(halves, call.shape, "glu")


def written(call: OpCall) -> Tensor:
    """``self.copy_(src)``."""
    return call.ledger.meet([call.ids("self"), call.ids("src")], call.shape, "copy")


def aligned(call: OpCall) -> Tensor:
    """Regions (K, 5) cut out of maps (B, C, H, W): (K, C, h, w)."""
    return layers.across(layers.channels(call.ledger, call.ids("input"), 1), call.shape, 1)


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_named("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution", layers.convolution),
    **_named("linear", layers.linear),
    **_named("addmm mm", layers.addmm),
    **_named("batch_norm instance_norm", layers.batch_norm),
    **_named("group_norm", layers.group_norm),
    **_named("layer_norm rms_norm", layers.layer_norm),
    **_named("prelu", layers.prelu),
    **_named("embedding", layers.embedding),
    **dict.fromkeys(movement.VIEWS, movement.reshaped),
    **_named(movement.MOVES, movement.moved),
    **_named("expand expand_as broadcast_to", movement.expanded),
    **_named("cat concat concatenate", movement.joined),
    **_named("stack", movement.stacked),
    **_named("pad constant_pad_nd", movement.padded),
    **_named("index", movement.indexed),
    **_named("index_select gather", movement.picked),
    **_named("index_put", movement.put),
    **_named("roi_align roi_pool", aligned),
    **_named("im2col", movement.unfolded),
    **_named("col2im", movement.folded),
    **_named("matmul bmm", matmul),
    **_named("scaled_dot_product_attention", attention),
    **_named("glu", gated),
    **_named("copy", written),
    **_named("softmax _softmax log_softmax _log_softmax cumsum cumprod", softmax),
    **_named(
        "sum mean amax amin max min norm linalg_vector_norm var std var_mean std_mean prod logsumexp argmax any all",
        reduction,
    ),
    **_named(
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d lp_pool2d upsample_nearest1d "
        "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa upsample_linear1d grid_sampler grid_sampler_2d",
        pooling,
    ),
    **_named(
        "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty "
        "bernoulli",
        neutral,
    ),
    **_named("arange linspace logspace eye tril_indices triu_indices", numbered),
    **_named(
        "dropout feature_dropout alpha_dropout clone contiguous to _to_copy type_as detach alias lift_fresh_copy lift "
        "hardtanh relu relu6 hardswish hardsigmoid silu mish celu selu elu leaky_relu rrelu softplus gelu fill",
        same,
    ),
}
