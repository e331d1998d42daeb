"""What each call of a graph does to channel ids: the table of rules, and the rules for calls that mix elements or have
weights. Those that only move elements are in `movement`.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from solution.compress.coupling import movement
from solution.compress.coupling.ids import KEPT, NEUTRAL, ChannelIds, slim, uniform, varies
from solution.compress.coupling.walk import OpCall, Rule, Weight


def channels(ledger: ChannelIds, ids: Tensor, dim: int) -> Tensor:
    """(C,) ids along `dim`; what differs elsewhere is tied."""
    dim %= ids.ndim
    ids = ledger.collapse(ids, [other for other in range(ids.ndim) if other != dim])
    return ids.movedim(dim, 0).reshape(ids.shape[dim], -1)[:, 0]


def across(ids: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """(C,) ids laid along `dim` of `shape`, uniform elsewhere."""
    view = [1] * len(shape)
    view[dim] = len(ids)
    return ids.reshape(view).expand(shape)


def unknown(call: OpCall) -> Tensor | list[Tensor] | None:
    """A call without a rule: everything that enters it stays."""
    for ids in call.tensors():
        call.ledger.keep(ids, f"{call.name} is not followed")
    if isinstance(call.result, torch.Tensor):
        return uniform(KEPT, call.shape)
    if isinstance(call.result, list | tuple):
        return [uniform(KEPT, result.shape) if isinstance(result, torch.Tensor) else result for result in call.result]
    return None


def convolution(call: OpCall) -> Tensor | list[Tensor] | None:
    """Plain, grouped, depthwise and transposed convolution of any number of dimensions."""
    ids, weight = call.ids("input"), call["weight"]
    if not isinstance(weight, Weight) or len(weight.shape) < 3:
        return unknown(call)
    transposed = "transpose" in call.name or bool(call["transposed"])
    dim = ids.ndim - len(weight.shape) + 1
    arriving, groups = channels(call.ledger, ids, dim), call["groups"]
    if groups == len(arriving) > 1 and weight.name not in call.ledger.readers:
        made = _depthwise(call.ledger, weight.name, arriving, call.shape[dim], transposed)
    else:
        in_axis, out_axis = (0, 1) if transposed else (1, 0)
        call.ledger.tie(call.ledger.axis(weight.name, in_axis, len(arriving), "in", groups), arriving)
        made = call.ledger.axis(weight.name, out_axis, call.shape[dim], "out", groups)
    for vector in (call["bias"], *(Weight(name=gain, shape=()) for gain in weight.gains)):
        carry(call.ledger, vector, made)
    return across(made, call.shape, dim)


def _depthwise(ledger: ChannelIds, name: str, arriving: Tensor, num_made: int, transposed: bool) -> Tensor:
    """Every channel has its own filters: they live and die with it."""
    made = arriving.repeat_interleave(num_made // len(arriving))
    if transposed and num_made != len(arriving):
        ledger.keep(arriving, "a transposed depthwise convolution multiplies it")
        return made
    ledger.tie(ledger.axis(name, 0, num_made, "with"), made)
    return made


def carry(ledger: ChannelIds, vector: object, made: Tensor, role: str = "with", groups: int = 1) -> None:
    """A bias, scale or running statistic: one number per channel."""
    if isinstance(vector, Weight):
        ledger.tie(ledger.axis(vector.name, 0, len(made), role, groups), made)


def linear(call: OpCall) -> Tensor | list[Tensor] | None:
    """``input @ weight.T + bias``."""
    weight = call["weight"]
    if not isinstance(weight, Weight) or weight.turned:
        return unknown(call)
    return dense(call, call.ids("input"), weight, call["bias"])


def dense(call: OpCall, ids: Tensor, weight: Weight, bias: object) -> Tensor:
    """A matrix product of activations `ids` (..., I) and a weight whose rows are outputs unless it is turned.

    A layer that mixes positions (all of its inputs belong to one channel) is no maker of channels: they pass through.
    """
    if not varies(ids, -1) and any(varies(ids, dim) for dim in range(ids.ndim - 1)):
        return ids.narrow(-1, 0, 1).expand(call.shape)
    in_axis, out_axis = (0, 1) if weight.turned else (1, 0)
    arriving = channels(call.ledger, ids, -1)
    call.ledger.tie(call.ledger.axis(weight.name, in_axis, len(arriving), "in"), arriving)
    made = call.ledger.axis(weight.name, out_axis, call.shape[-1], "out")
    carry(call.ledger, bias, made)
    return across(made, call.shape, len(call.shape) - 1)


def addmm(call: OpCall) -> Tensor | list[Tensor] | None:
    """``self + mat1 @ mat2`` where mat2 is a weight, as F.linear is written at a lower level."""
    weight = call["mat2"]
    if not isinstance(weight, Weight):
        return unknown(call)
    stored = Weight(name=weight.name, shape=weight.shape, turned=not weight.turned)
    source = call.ids("mat1") if call.name == "addmm" else call.ids("self")
    return dense(call, source, stored, call["self"] if call.name == "addmm" else None)


def batch_norm(call: OpCall) -> Tensor:
    """Batch and instance norm: one scale, shift, mean and variance per channel."""
    ids = call.ids("input")
    made = channels(call.ledger, ids, 1)
    for name in ("weight", "bias", "running_mean", "running_var"):
        carry(call.ledger, call[name], made)
    return across(made, call.shape, 1)


def group_norm(call: OpCall) -> Tensor:
    """Group norm: its groups must keep equal sizes, and statistics are those of the channels that stay."""
    ids, groups = call.ids("input"), call["num_groups"]
    made = channels(call.ledger, ids, 1)
    names = [call[name].name for name in ("weight", "bias") if isinstance(call[name], Weight)] or [f":{call.label}"]
    groups = 1 if groups == len(made) and names[0] not in call.ledger.in_groups else groups
    for name in ("weight", "bias"):
        carry(call.ledger, call[name], made, "joint", groups)
    if names[0].startswith(":"):
        call.ledger.tie(call.ledger.axis(names[0], 0, len(made), "joint", groups), made)
    return across(made, call.shape, 1)


def layer_norm(call: OpCall) -> Tensor:
    """Layer and RMS norm: scale and shift lie along the last dimensions."""
    for name in ("weight", "bias"):
        vector = call[name]
        if isinstance(vector, Weight) and len(vector.shape) == 1:
            call.ledger.axis(vector.name, 0, vector.shape[0], "joint")
    return call.ledger.meet([call.ids("input"), call.ids("weight"), call.ids("bias")], call.shape, "a norm")


def prelu(call: OpCall) -> Tensor:
    """One slope per channel, or one for all."""
    ids, weight = call.ids("self"), call["weight"]
    if isinstance(weight, Weight) and weight.shape[0] > 1:
        made = channels(call.ledger, ids, 1)
        carry(call.ledger, weight, made)
        return across(made, call.shape, 1)
    return ids


def embedding(call: OpCall) -> Tensor | list[Tensor] | None:
    """Rows of a table: its columns are the channels."""
    weight = call["weight"]
    if not isinstance(weight, Weight):
        return unknown(call)
    return across(call.ledger.axis(weight.name, 1, weight.shape[1], "out"), call.shape, len(call.shape) - 1)


def apply_rule(call: OpCall) -> Any:
    """The ids of what `call` returns."""
    if call.result is None:
        return None
    known = RULES.get(call.name)
    if known is None and (torch.Tag.pointwise in call.op.tags or not call.tensors()):
        known = pointwise
    result = (known or unknown)(call)
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
        return unknown(call) if call.tensors() else None
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
    """Everything along `dim` depends on everything else there: over all channels, on those that stay."""
    ids, over = call.ids("self"), call["dim"] % len(call.shape)
    if call.ledger.is_over_all([dim for dim in range(ids.ndim) if varies(ids, dim)] == [over]):
        call.ledger.statistic(ids)
        return ids.expand(call.shape)
    return call.ledger.collapse(ids, [over])


PICKING = ("argmax", "argmin", "any", "all")
"""Reductions that return where something is, or whether."""


def reduction(call: OpCall) -> Any:
    """Sum, mean, maximum, norm. Over all channels it is one over those that stay; over some, these go together."""
    if "other" in call.arguments:
        return pointwise(call)
    ids = call.ids("self")
    asked = call["dim"] if "dim" in call.arguments else None
    dims = [asked] if isinstance(asked, int) else list(asked or range(ids.ndim))
    dims = [dim % max(1, ids.ndim) for dim in dims]
    single = isinstance(call.result, torch.Tensor)
    shape = tuple((call.result if single else call.result[0]).shape)
    along = {dim for dim in range(ids.ndim) if varies(ids, dim)}
    over_all = bool(along) and along <= set(dims) and call.name not in PICKING and not call.picks
    if call.ledger.is_over_all(over_all):
        call.ledger.statistic(ids)
        return uniform(NEUTRAL, shape) if single else [uniform(NEUTRAL, shape) for _ in call.result]
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
        return dense(call, left, stored, None)
    right = call.ids("other") if "other" in call.arguments else call.ids("mat2")
    if min(left.ndim, right.ndim) < 2:
        return unknown(call)
    batch = any(varies(side, dim) for side in (left, right) for dim in range(side.ndim - 2))
    inner = varies(left, -1) or varies(right, -2)
    contracts = inner and not batch and not _headed(left, right) and not varies(left, -2) and not varies(right, -1)
    if call.ledger.is_over_all(contracts and all(int(slim(ids).max()) > KEPT for ids in (left, right))):
        call.ledger.tie(channels(call.ledger, left, -1), channels(call.ledger, right, -2))
        return uniform(NEUTRAL, call.shape)
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
    return across(channels(call.ledger, call.ids("input"), 1), call.shape, 1)


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_named("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution", convolution),
    **_named("linear", linear),
    **_named("addmm mm", addmm),
    **_named("batch_norm instance_norm", batch_norm),
    **_named("group_norm", group_norm),
    **_named("layer_norm rms_norm", layer_norm),
    **_named("prelu", prelu),
    **_named("embedding", embedding),
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
