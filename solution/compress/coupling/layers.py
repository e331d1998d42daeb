"""Rules for calls that have weights: convolution, linear, norms, embedding, recurrent layers. They make, read and carry
channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from solution.compress.coupling.ids import KEPT, ChannelIds, uniform, varies
from solution.compress.coupling.walk import OpCall, Weight, as_ids


def channels(ledger: ChannelIds, ids: Tensor, dim: int) -> Tensor:
    """(C,) ids along `dim`; what differs elsewhere is tied."""
    dim %= ids.ndim
    ids = ledger.collapse(ids, [other for other in range(ids.ndim) if other != dim])
    if ids.numel() == 0:
        return uniform(KEPT, (ids.shape[dim],))
    return ids.movedim(dim, 0).reshape(ids.shape[dim], -1)[:, 0]


def across(ids: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """(C,) ids laid along `dim` of `shape`, uniform elsewhere."""
    view = [1] * len(shape)
    view[dim] = len(ids)
    return ids.reshape(view).expand(shape)


def narrowed(ids: Tensor, dims: list[int]) -> Tensor:
    """The first along `dims`."""
    for dim in dims:
        ids = ids.narrow(dim, 0, 1)
    return ids


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
    if call.ledger.is_over_all(_is_beside(call, ids, weight, dim), " beside"):
        return narrowed(ids, [other for other in range(dim, ids.ndim) if not varies(ids, other)]).expand(call.shape)
    if not varies(ids, dim) and ids.shape[dim] == 1:  # a gate that looks at neighbouring channels
        lengths = {other: call.ledger.blended(ids, other, call.shape[other]) for other in range(dim + 1, ids.ndim)}
        kept = next((one for one in lengths.values() if one is not None), None)
        if kept is not None and call.shape[dim] == 1:
            return kept.expand(call.shape)
    arriving, groups = channels(call.ledger, ids, dim), call["groups"]
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    if groups == len(arriving) > 1 and weight.name not in call.ledger.readers:
        made = _depthwise(call.ledger, weight.name, arriving, call.shape[dim], transposed)
        channels_of = {0: made}
    else:
        call.ledger.tie(weight.axis(call.ledger, in_axis, len(arriving), "in", groups), arriving)
        made = weight.axis(call.ledger, out_axis, call.shape[dim], "out", groups)
        channels_of = {in_axis: arriving, out_axis: made}
    carry(call.ledger, call["bias"], made)
    _carry_along(call.ledger, weight, channels_of, groups)
    return across(made, call.shape, dim)


def _is_beside(call: OpCall, ids: Tensor, weight: Weight, dim: int) -> bool:
    """Whether a convolution mixes tokens, say, and channels lie along a dimension that its kernel does not widen; or in
    the place of samples, each filtered alone.
    """
    spatial = [other for other in range(dim + 1, ids.ndim) if varies(ids, other)]
    beside = all(weight.shape[other - dim + 1] == 1 and call.shape[other] == ids.shape[other] for other in spatial)
    alone = any(varies(ids, other) for other in range(dim))
    return (bool(spatial) or alone) and beside and not varies(ids, dim)


def deformable(call: OpCall) -> Tensor | list[Tensor] | None:
    """A convolution that looks where `offset` says, in groups of channels that may look elsewhere."""
    for name in ("offset", "mask"):
        call.ledger.keep(call.ids(name), "it says where a convolution looks")
    window = call["weight"].shape[2] * call["weight"].shape[3] if isinstance(call["weight"], Weight) else 1
    groups, arriving = call.ids("offset").shape[1] // (2 * window), channels(call.ledger, call.ids("input"), 1)
    if groups > 1:
        call.ledger.tie(call.ledger.axis(f":{call.label}", 0, len(arriving), "joint", groups), arriving)
    return convolution(call)


def _depthwise(ledger: ChannelIds, name: str, arriving: Tensor, num_made: int, transposed: bool) -> Tensor:
    """Every channel has its own filters: they live and die with it."""
    made = arriving.repeat_interleave(num_made // len(arriving))
    if transposed and num_made != len(arriving):
        ledger.keep(arriving, "a transposed depthwise convolution multiplies it")
        return made
    ledger.tie(ledger.axis(name, 0, num_made, "with"), made)
    return made


def _carry_along(ledger: ChannelIds, weight: Weight, channels_of: dict[int, Tensor], groups: int = 1) -> None:
    """What is computed together with `weight`. channels_of: axis of the weight -> ids."""
    for name, axis, whose in weight.along:
        if whose in channels_of:
            ids = channels_of[whose]
            ledger.tie(ledger.axis(name, axis, len(ids), "with", groups if axis == 1 else 1), ids)


def carry(ledger: ChannelIds, vector: object, made: Tensor, role: str = "with", groups: int = 1) -> None:
    """A bias, scale or running statistic: one number per channel."""
    if isinstance(vector, Weight):
        ledger.tie(vector.axis(ledger, 0, len(made), role, groups), made)
    elif isinstance(vector, Tensor) and vector.shape == made.shape:  # the forward computes it
        ledger.tie(vector, made)


def linear(call: OpCall) -> Tensor | list[Tensor] | None:
    """``input @ weight.T + bias``."""
    weight = call["weight"]
    if not isinstance(weight, Weight):
        return unknown(call)
    return dense(call, call.ids("input"), weight, call["bias"])


def dense(call: OpCall, ids: Tensor, weight: Weight, bias: object, shape: tuple[int, ...] | None = None) -> Tensor:
    """A matrix product of activations `ids` (..., I) and a weight whose rows are outputs unless it is turned.

    A layer that mixes positions (all of its inputs belong to one channel) is no maker of channels: they pass through.
    """
    shape = shape or call.shape
    if not varies(ids, -1) and any(varies(ids, dim) for dim in range(ids.ndim - 1)):
        return ids.narrow(-1, 0, 1).expand(shape)
    in_axis, out_axis = (0, 1) if weight.turned else (1, 0)
    arriving = channels(call.ledger, ids, -1)
    call.ledger.tie(weight.axis(call.ledger, in_axis, len(arriving), "in"), arriving)
    made = weight.axis(call.ledger, out_axis, shape[-1], "out")
    carry(call.ledger, bias, made)
    _carry_along(call.ledger, weight, {out_axis: made, in_axis: arriving})
    return across(made, shape, len(shape) - 1)


def addmm(call: OpCall) -> Tensor | list[Tensor] | None:
    """``self + mat1 @ mat2`` where mat2 is a weight, as F.linear is written at a lower level."""
    weight = call["mat2"]
    if not isinstance(weight, Weight):
        return unknown(call)
    stored = replace(weight, turned=not weight.turned)
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


def bilinear(call: OpCall) -> Tensor | list[Tensor] | None:
    """``input1 @ weight @ input2`` for every output."""
    weight = call["weight"]
    if not isinstance(weight, Weight):
        return unknown(call)
    for axis, name in ((1, "input1"), (2, "input2")):
        arriving = channels(call.ledger, call.ids(name), -1)
        call.ledger.tie(call.ledger.axis(weight.name, axis, len(arriving), "in"), arriving)
    made = call.ledger.axis(weight.name, 0, call.shape[-1], "out")
    carry(call.ledger, call["bias"], made)
    return across(made, call.shape, len(call.shape) - 1)


def cell(call: OpCall) -> list[Tensor] | Tensor | None:
    """One step of an LSTM, GRU or RNN: its input is read, hidden channels stay."""
    weight = call["w_ih"]
    if not isinstance(weight, Weight):
        return unknown(call)
    _keep_states(call)
    arriving = channels(call.ledger, call.ids("input"), -1)
    call.ledger.tie(call.ledger.axis(weight.name, 1, len(arriving), "in"), arriving)
    if isinstance(call.result, Tensor):
        return uniform(KEPT, call.shape)
    return [uniform(KEPT, one.shape) for one in call.result]


def _keep_states(call: OpCall) -> None:
    for state in call["hx"] if isinstance(call["hx"], list) else [call["hx"]]:
        call.ledger.keep(as_ids(call.ledger, state), "it is the state of a recurrent layer")


def recurrent(call: OpCall) -> list[Tensor] | Tensor | None:
    """LSTM, GRU, RNN: the first layer reads channels; hidden channels stay."""
    weights = call["params"]
    if not isinstance(weights, list) or not all(isinstance(weight, Weight) for weight in weights):
        return unknown(call)
    _keep_states(call)
    arriving = channels(call.ledger, call.ids("input"), -1)
    directions = 2 if call["bidirectional"] else 1
    for weight in weights[:: len(weights) // (call["num_layers"] * directions)][:directions]:
        call.ledger.tie(call.ledger.axis(weight.name, 1, len(arriving), "in"), arriving)
    return [uniform(KEPT, one.shape) for one in call.result]
