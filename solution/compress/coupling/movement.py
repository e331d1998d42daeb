"""Rules for calls that only move elements: the call is carried out on the ids themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from solution.compress.coupling.ids import (
    KEPT,
    MOST_ELEMENTS,
    NEUTRAL,
    ChannelIds,
    is_neutral,
    packed,
    slim,
    uniform,
    varies,
)
from solution.compress.coupling.walk import OpCall, Weight

VIEWS = ("view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten", "view_as", "reshape_as")
MOVES = """
permute transpose swapaxes movedim moveaxis t numpy_T mT squeeze unsqueeze select slice narrow split split_with_sizes
chunk tensor_split hsplit vsplit unbind unfold diagonal flip roll rot90 pixel_shuffle pixel_unshuffle channel_shuffle
native_channel_shuffle repeat tile repeat_interleave
"""
FEW_ELEMENTS = 1 << 16
"""So many elements are compared to find dimensions along which nothing changes, such as the batch beside heads."""
PARTS = ("slice", "narrow", "split", "split_with_sizes", "chunk", "tensor_split")
COPIES = ("flip", "roll", "rot90", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "repeat", "tile")


def moved(call: OpCall) -> Any:
    """Carry out the call on the ids."""
    if call.name in ("t", "transpose", "permute", "numpy_T") and _turns_weight(call):
        weight = call["self"]
        return replace(weight, turned=not weight.turned)
    if (parts := _weight_parts(call)) is not None:
        return parts
    ids = call.ids("self")
    if call.name in COPIES and ids.numel() > MOST_ELEMENTS:
        return _kept(call, ids)
    arguments = {name: value for name, value in call.arguments.items() if name != "self"}
    result = call.op(ids, **arguments)
    if isinstance(result, Tensor):
        if "groups" in arguments:
            call.ledger.in_runs(call.label, ids, 1, arguments["groups"])
        return packed(result)
    if len({part.shape for part in result}) == 1 and result[0].ndim == ids.ndim:
        call.ledger.in_runs(call.label, ids, call["dim"] or 0, len(result))
    return list(result)


def _weight_parts(call: OpCall) -> Any:
    """Rows of a weight, such as the queries of a packed projection; None for any other call."""
    weight = call["self"]
    if call.name not in PARTS or not isinstance(weight, Weight) or weight.turned or (call["dim"] or 0) != 0:
        return None
    first, every = weight.part or (0, weight.shape[0])
    found = call.op(torch.arange(weight.shape[0]), **{n: v for n, v in call.arguments.items() if n != "self"})
    parts = [
        replace(weight, shape=(len(part), *weight.shape[1:]), part=(first + int(part[0]), every))
        for part in ([found] if isinstance(found, Tensor) else found)
        if len(part) and bool((part.diff() == 1).all())
    ]
    if len(parts) != (1 if isinstance(found, Tensor) else len(found)):
        return None
    return parts[0] if isinstance(found, Tensor) else parts


def _turns_weight(call: OpCall) -> bool:
    return isinstance(call["self"], Weight) and len(call["self"].shape) == 2


def reshaped(call: OpCall) -> Tensor:
    """View, reshape, flatten, unflatten: only the resulting shape matters."""
    ids = call.ids("self")
    result = _reshaped(call, ids)
    if int(slim(result).max()) > KEPT:
        call.ledger.views[call.label] = tuple(varies(result, dim) for dim in range(result.ndim))
    return result


def _reshaped(call: OpCall, ids: Tensor) -> Tensor:
    if ids.ndim > 2 and len(call.shape) == ids.ndim + 1 and _in_runs(ids.shape, call.shape):
        call.ledger.in_runs(call.label, ids, 1, call.shape[1])
    try:
        viewed = ids.view(call.shape)
        return packed(viewed) if slim(viewed).numel() <= FEW_ELEMENTS else viewed
    except RuntimeError:
        return packed(ids.reshape(call.shape)) if ids.numel() <= MOST_ELEMENTS else _kept(call, ids)


def _in_runs(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """(B, C, ...) to (B, runs, C // runs, ...)."""
    runs = after[1]
    return runs > 0 and after == (before[0], runs, before[1] // runs, *before[2:])


def _kept(call: OpCall, ids: Tensor) -> Tensor:
    call.ledger.keep(ids, f"{call.name} is too large to follow")
    return uniform(KEPT, call.shape)


def expanded(call: OpCall) -> Tensor:
    """Expand and broadcast: new or stretched dimensions are uniform."""
    return call.ids("self").expand(call.shape)


def joined(call: OpCall) -> Tensor:
    """Concatenate along `dim`."""
    dim = call["dim"] % len(call.shape)
    return _cat(call, [part for part in call.tensors() if part.numel()], dim)


def stacked(call: OpCall) -> Tensor:
    """Stack along a new `dim`."""
    dim = call["dim"] % len(call.shape)
    return _cat(call, [part.unsqueeze(dim) for part in call.tensors()], dim)


def _cat(call: OpCall, parts: list[Tensor], dim: int) -> Tensor:
    if all(map(is_neutral, parts)):  # constants, each another one
        parts = [uniform(KEPT if number else NEUTRAL, part.shape) for number, part in enumerate(parts)]
    for other in range(len(call.shape)):
        if other != dim and not any(varies(part, other) for part in parts):
            parts = [part.narrow(other, 0, 1) for part in parts]
    if sum(part.numel() for part in parts) > MOST_ELEMENTS:
        for part in parts:
            call.ledger.keep(part, f"{call.name} is too large to follow")
        return uniform(KEPT, call.shape)
    return packed(torch.cat(parts, dim)).expand(call.shape)


def padded(call: OpCall) -> Tensor:
    """Zero-padding of channels adds neutral elements; padding of uniform dimensions changes nothing."""
    ids, amounts = call.ids("self"), list(call["pad"])
    touched = [ids.ndim - 1 - side // 2 for side, amount in enumerate(amounts) if amount]
    if not any(varies(ids, dim) for dim in touched):
        return _stretched(ids, call.shape)
    if call["mode"] not in (None, "constant") or slim(ids).numel() > MOST_ELEMENTS:
        return _kept(call, ids)
    return packed(torch.constant_pad_nd(slim_except(ids, touched), amounts)).expand(call.shape)


def slim_except(ids: Tensor, dims: list[int]) -> Tensor:
    """Uniform dimensions narrowed to 1, but for `dims`."""
    for dim in range(ids.ndim):
        if dim not in dims and ids.shape[dim] > 1 and not varies(ids, dim):
            ids = ids.narrow(dim, 0, 1)
    return ids


def _stretched(ids: Tensor, shape: tuple[int, ...]) -> Tensor:
    for dim, size in enumerate(shape):
        if ids.shape[dim] != size:
            ids = ids.narrow(dim, 0, 1)
    return ids.expand(shape)


def indexed(call: OpCall) -> Tensor:
    """Advanced indexing: which elements are taken is unknown, so all along an indexed dimension go together.

    A mask takes fewer than it has elements, hence the last line.
    """
    ids, indices = call.ids("self"), call["indices"]
    dims = [dim for dim, index in enumerate(indices) if index is not None]
    ids = call.ledger.collapse(ids, dims)
    probe = [None if index is None else torch.zeros(tuple(index.shape), dtype=torch.long) for index in indices]
    small = slim_except(ids, dims)
    result = torch.ops.aten.index.Tensor(small, probe) if _written(small, probe) <= MOST_ELEMENTS else None
    if result is None or result.ndim != len(call.shape):
        return _kept(call, ids)
    return _stretched(packed(result), call.shape)


def put(call: OpCall) -> Tensor:
    """``self[index] = values`` along one dimension: what is written there goes along with what it is written among."""
    ids, values = call.ids("self"), call.ids("values")
    dims = [dim for dim, index in enumerate(call["indices"]) if index is not None]
    if len(dims) != 1 or values.ndim != ids.ndim:
        call.ledger.keep(values, "it is written into a part of a tensor")
        return _kept(call, ids)
    written = call.ledger.collapse(values, dims).narrow(dims[0], 0, 1)
    return call.ledger.meet([call.ledger.collapse(ids, dims), _stretched(written, call.shape)], call.shape, "index_put")


def _written(ids: Tensor, probe: list[Tensor | None]) -> int:
    taken = max(index.numel() for index in probe if index is not None)
    return taken * slim(ids).numel()


def picked(call: OpCall) -> Tensor:
    """index_select and gather: the same along one dimension."""
    dim = call["dim"] % len(call.shape)
    ids = call.ledger.collapse(call.ids("self"), [dim])
    return _stretched(ids, call.shape)


def taken(call: OpCall) -> Tensor:
    """take_along_dim: the same, or anywhere."""
    ids, dim = call.ids("self"), call["dim"]
    dims = range(ids.ndim) if dim is None else [dim % ids.ndim]
    ids = call.ledger.collapse(ids, dims)
    for one in dims:
        ids = ids.narrow(one, 0, 1)
    return (ids.flatten()[:1] if dim is None else ids).expand(call.shape)


def scattered(call: OpCall) -> Tensor:
    """Written or added to places along `dim` that an index names: what lies along it goes together."""
    dim = call["dim"] % len(call.shape)
    source = call.ids("source" if "source" in call.arguments else "src")
    ids = call.ledger.collapse(call.ids("self"), [dim])
    if not isinstance(source, Tensor) or source.ndim != ids.ndim:
        return ids
    source = call.ledger.collapse(source, [dim]).narrow(dim, 0, 1)
    if any(source.shape[other] != ids.shape[other] for other in range(ids.ndim) if other != dim):
        call.ledger.keep(source, "it is written into a part of a tensor")
        return _kept(call, ids)
    return call.ledger.meet([ids, source.expand(call.shape)], call.shape, call.name)


def unfolded(call: OpCall) -> Tensor:
    """im2col: (B, C, H, W) -> (B, C * kernel, L)."""
    ids = call.ledger.collapse(call.ids("self"), [2, 3])
    window = call["kernel_size"][0] * call["kernel_size"][1]
    return packed(ids[:, :, 0, 0].repeat_interleave(window, 1)[:, :, None]).expand(call.shape)


def folded(call: OpCall) -> Tensor:
    """col2im: (B, C * kernel, L) -> (B, C, H, W)."""
    ids = call.ledger.collapse(call.ids("self"), [2])[:, :, 0]
    ids = call.ledger.collapse(ids.reshape(ids.shape[0], call.shape[1], -1), [2])
    return ids[:, :, :1, None].expand(call.shape)


def restored(ledger: ChannelIds, ids: Tensor, dims: list[int], shape: tuple[int, ...], keepdim: bool) -> Tensor:
    """Ids of a reduction over `dims`: tied along them, and the dimensions dropped unless `keepdim`."""
    ids = ledger.collapse(ids, dims)
    for dim in sorted(dims, reverse=True):
        ids = ids.narrow(dim, 0, 1) if keepdim else ids.select(dim, 0)
    return ids.expand(shape)
