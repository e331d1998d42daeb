"""What each call of a graph does to channel ids: the table of rules, and the rules for calls that mix elements.

Calls that have weights are in `layers`, products in `products`, and those that only move elements in `movement`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from solution.compress.coupling import layers, movement, pairs, products
from solution.compress.coupling.ids import KEPT, NEUTRAL, is_neutral, slim, uniform, varies
from solution.compress.coupling.walk import OpCall, Rule, Weight


def apply_rule(call: OpCall) -> Any:
    """The ids of what `call` returns."""
    if call.result is None:
        return None
    known = RULES.get(call.name)
    if known is None and (torch.Tag.pointwise in call.op.tags or not call.tensors()):
        known = pointwise
    try:
        if pairs.is_paired(call):
            return pairs.paired(call, apply_rule)
        return (known or layers.unknown)(call)
    except (RuntimeError, ValueError, IndexError, TypeError):  # a form of the call that its rule was not written for
        return pairs.given_up(call)


def pointwise(call: OpCall) -> Any:
    """Element by element: operands that meet are tied."""
    if not isinstance(call.result, torch.Tensor):
        return layers.unknown(call) if call.tensors() else None
    operands = [value for value in call.arguments.values() if isinstance(value, Tensor | Weight)]
    weights = [value for value in operands if isinstance(value, Weight)]
    if call.op._schema.is_mutable and len(call.shape) > 1 and len(operands) == len(weights) == 2:
        return masked(call, *weights)
    return call.ledger.meet(call.tensors(), call.shape, call.name)


def masked(call: OpCall, weight: Weight, mask: Weight) -> Any:
    """A weight that the forward changes in place, element by element: a mask goes along with its rows and columns."""
    if weight.shape != mask.shape or weight.turned or mask.turned:
        return layers.unknown(call)
    for axis, length in enumerate(weight.shape[:2]):
        if length > 1:
            axes = (one.axis(call.ledger, axis, length, "with") for one in (weight, mask))
            call.ledger.tie(*axes)
    return weight


def neutral(call: OpCall) -> Tensor:
    """A new tensor that takes only its shape from another."""
    return uniform(NEUTRAL, call.shape)


def drawn(call: OpCall) -> Tensor:
    """Random numbers, each by itself, of what is given for it or of its shape alone; of a seed, always the same."""
    return numbered(call) if call["generator"] is not None else call.ledger.meet(call.tensors(), call.shape, call.name)


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
    kept = call.ledger.blended(ids, over, call.shape[over])
    return call.ledger.collapse(ids, [over]) if kept is None else kept


def along(call: OpCall) -> Any:
    """Sorted, largest, running extremes along `dim`: everything there goes together."""
    ids = call.ids("self")
    dim = (call["dim"] or 0) % ids.ndim
    single = call.result if isinstance(call.result, torch.Tensor) else call.result[0]
    kept = call.ledger.blended(ids, dim, single.shape[dim])
    ids = call.ledger.collapse(ids, [dim]).narrow(dim, 0, 1) if kept is None else kept
    if isinstance(call.result, torch.Tensor):
        return ids.expand(call.shape)
    return [ids.expand(one.shape) for one in call.result]


def transformed(call: OpCall) -> Tensor:
    """Fourier transforms over `dim`: positions mix, and may become fewer or more."""
    ids, wanted = call.ids("self"), call["dim"]
    every = range(ids.ndim) if call.name.endswith("n") else (-2, -1)
    dims = [dim % ids.ndim for dim in ([wanted] if isinstance(wanted, int) else wanted or every)]
    ids = call.ledger.collapse(ids, dims)
    for dim in dims:
        ids = ids.narrow(dim, 0, 1)
    return ids.expand(call.shape)


def similarity(call: OpCall) -> Tensor:
    """Cosine of two activations along `dim`, over the channels that stay."""
    left, right = call.ids("x1"), call.ids("x2")
    shape = torch.broadcast_shapes(left.shape, right.shape)
    ids, over = call.ledger.meet([left, right], shape, "cosine_similarity"), call["dim"] % len(shape)
    if call.ledger.is_over_all([dim for dim in range(ids.ndim) if varies(ids, dim)] == [over]):
        call.ledger.statistic(ids)
        return uniform(NEUTRAL, call.shape)
    return movement.restored(call.ledger, ids, [over], call.shape, False)


def distances(call: OpCall) -> Any:
    """Distances (..., P, M) between rows (..., P, C) and (..., M, C), over the channels that stay."""
    left, right = call.ids("x1"), call.ids("x2")
    plain = [ids for ids, value in ((left, call["x1"]), (right, call["x2"])) if not isinstance(value, Weight)]
    apart = any(varies(ids, dim) for ids in plain for dim in range(ids.ndim - 1))
    if not call.ledger.is_over_all(not apart and (varies(left, -1) or varies(right, -1))):
        return layers.unknown(call)
    ids = layers.channels(call.ledger, left, -1)
    call.ledger.tie(ids, layers.channels(call.ledger, right, -1))
    call.ledger.statistic(ids)
    return uniform(NEUTRAL, call.shape)


def differences(call: OpCall) -> Tensor:
    """Differences of neighbours along `dim`."""
    dim = call["dim"] % len(call.shape)
    return call.ledger.collapse(call.ids("self"), [dim]).narrow(dim, 0, 1).expand(call.shape)


def as_complex(call: OpCall) -> Any:
    """Pairs of numbers (..., 2) as complex ones."""
    if isinstance(weight := call["self"], Weight) and len(weight.shape) > 2 and not weight.turned:
        return replace(weight, shape=weight.shape[:-1])
    return call.ledger.collapse(call.ids("self"), [len(call.shape)]).select(-1, 0)


def as_pairs(call: OpCall) -> Tensor:
    """Complex numbers as pairs (..., 2)."""
    return call.ids("self")[..., None].expand(call.shape)


PICKING = ("argmax", "argmin", "any", "all", "median", "nanmedian", "mode", "kthvalue")
"""Reductions that return where something is, or whether, or one element of many."""


def reduction(call: OpCall) -> Any:
    """Sum, mean, maximum, norm. Over all channels it is one over those that stay; over some, these go together."""
    if "other" in call.arguments:
        return pointwise(call)
    ids = call.ids("self")
    wanted = call["dim"] if "dim" in call.arguments else None
    dims = [wanted] if isinstance(wanted, int) else list(wanted or range(ids.ndim))
    dims = [dim % max(1, ids.ndim) for dim in dims]
    single = isinstance(call.result, torch.Tensor)
    shape = tuple((call.result if single else call.result[0]).shape)
    along = {dim for dim in range(ids.ndim) if varies(ids, dim)}
    if along - set(dims):
        ids = call.ledger.with_channels(ids)
        along = {dim for dim in range(ids.ndim) if varies(ids, dim)}
    picks = call.name in PICKING or call.picks
    over_all = bool(along) and along <= set(dims) and (call.ledger.approximate or not picks)
    if call.ledger.is_over_all(over_all):
        call.ledger.approximated.update([call.ledger.call] if picks else [])
        call.ledger.statistic(ids)
        return uniform(NEUTRAL, shape) if single else [uniform(NEUTRAL, shape) for _ in call.result]
    result = movement.restored(call.ledger, ids, dims, shape, bool(call["keepdim"]))
    return result if single else [result for _ in call.result]


def pooling(call: OpCall) -> Any:
    """Pooling, resizing, sampling: channels stay what they are, positions mix."""
    ids = call.ids("self") if "self" in call.arguments else call.ids("input")
    if isinstance(call["indices"], Tensor):  # of an unpooling: channel by channel
        ids = call.ledger.meet([ids, call.ids("indices")], ids.shape, call.name)
    spatial = int(re.findall(r"([123])d", call.name + "2d")[0])
    result = call.result if isinstance(call.result, torch.Tensor) else call.result[0]
    for dim in range(ids.ndim - spatial, ids.ndim):
        kept = call.ledger.blended(ids, dim, result.shape[dim])
        ids = call.ledger.collapse(ids, [dim]).narrow(dim, 0, 1) if kept is None else kept
    ids = ids.expand(result.shape)
    return ids if result is call.result else [ids for _ in call.result]


def gated(call: OpCall) -> Tensor:
    """Gated linear unit: the two halves along `dim` meet."""
    halves = call.ids("self").chunk(2, call["dim"])
    return call.ledger.meet(halves, call.shape, "glu")


def written(call: OpCall) -> Tensor:
    """``self.copy_(src)``: what was there before is gone, but for its channels where `src` has none."""
    ids, source = call.ids("self"), call.ids("src").expand(call.shape)
    if is_neutral(source):
        return ids
    return source if bool((slim(source) != NEUTRAL).all()) else call.ledger.meet([ids, source], call.shape, "copy")


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
    **_named("take_along_dim", movement.taken),
    **_named("scatter scatter_add scatter_reduce index_add index_copy index_reduce index_fill", movement.scattered),
    **_named("roi_align roi_pool", aligned),
    **_named("im2col", movement.unfolded),
    **_named("col2im", movement.folded),
    **_named("matmul bmm", products.matmul),
    **_named("scaled_dot_product_attention", products.attention),
    **_named("baddbmm", products.baddbmm),
    **_named("einsum", products.einsum),
    **_named("bilinear", layers.bilinear),
    **_named("deform_conv2d", layers.deformable),
    **_named("cdist _euclidean_dist", distances),
    **_named("diff", differences),
    **_named("view_as_complex", as_complex),
    **_named("view_as_real", as_pairs),
    **_named("lstm gru rnn_tanh rnn_relu", layers.recurrent),
    **_named("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", layers.cell),
    **_named("topk sort argsort msort cummax cummin", along),
    **_named("cosine_similarity", similarity),
    **_named(
        "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn", transformed
    ),
    **_named("complex polar", pointwise),
    **_named("glu", gated),
    **_named("copy", written),
    **_named("softmax _softmax log_softmax _log_softmax cumsum cumprod logcumsumexp", softmax),
    **_named(
        "sum mean amax amin max min norm linalg_vector_norm var std var_mean std_mean prod logsumexp argmax any all "
        "argmin median nanmedian mode kthvalue",
        reduction,
    ),
    **_named(
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d lp_pool2d upsample_nearest1d "
        "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa upsample_linear1d grid_sampler grid_sampler_2d grid_sampler_3d upsample_nearest3d "
        "_upsample_nearest_exact1d _upsample_nearest_exact3d upsample_trilinear3d adaptive_max_pool3d lp_pool1d "
        "lp_pool3d fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d max_pool3d_with_indices",
        pooling,
    ),
    **_named(
        "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty",
        neutral,
    ),
    **_named("rand randn bernoulli uniform normal exponential log_normal cauchy geometric poisson", drawn),
    **_named("arange linspace logspace eye tril_indices triu_indices scalar_tensor", numbered),
    **_named(
        "dropout feature_dropout alpha_dropout feature_alpha_dropout clone contiguous to _to_copy type_as detach "
        "alias lift lift_fresh lift_fresh_copy zero hardtanh "
        "relu relu6 hardswish hardsigmoid silu mish celu selu elu leaky_relu rrelu softplus gelu fill "
        "real imag conj _conj resolve_conj resolve_neg "
        "log_sigmoid hardshrink softshrink threshold native_dropout fake_quantize_per_tensor_affine",
        same,
    ),
}
