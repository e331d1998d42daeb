"""Rules for products of two activations: matrix products, attention, einsum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from solution.compress.coupling.ids import KEPT, NEUTRAL, slim, uniform, varies
from solution.compress.coupling.layers import across, channels, dense, unknown
from solution.compress.coupling.walk import OpCall, Pair, Weight, as_ids


def matmul(call: OpCall) -> Any:
    """A product of two activations (..., n, k) and (..., k, m), or of an activation and a weight."""
    name = "other" if "other" in call.arguments else "mat2"
    left, right = call.ids("self"), call[name]
    if isinstance(right, Weight) and len(right.shape) == 2:
        stored = replace(right, turned=not right.turned)
        return dense(call, left, stored, None)
    return product(call, left, call.ids(name), call.shape)


def baddbmm(call: OpCall) -> Any:
    """``self + batch1 @ batch2``."""
    made = product(call, call.ids("batch1"), call.ids("batch2"), call.shape)
    if not isinstance(made, Tensor):
        return unknown(call)
    return call.ledger.meet([call.ids("self"), made], call.shape, "baddbmm")


def product(call: OpCall, left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Any:
    """(..., n, k) and (..., k, m) to `shape`. A sum over all channels ties them pair by pair; attention by heads."""
    if min(left.ndim, right.ndim) < 2:
        return unknown(call)
    batch = any(varies(side, dim) for side in (left, right) for dim in range(side.ndim - 2))
    inner, both = varies(left, -1) or varies(right, -2), varies(left, -2) and varies(right, -1)
    alive = all(int(slim(ids).max()) > KEPT for ids in (left, right))
    one_head = call.ledger.is_over_all(left.ndim < 4 or left.shape[-3] == 1, " of one head")
    headed = min(left.ndim, right.ndim) > 3 and alive and not one_head  # with one head left they are tied as with many
    contracts = inner and not batch and not headed and not varies(left, -2) and not varies(right, -1)
    if call.ledger.is_over_all(contracts and alive):
        call.ledger.tie(channels(call.ledger, left, -1), channels(call.ledger, right, -2))
        return uniform(NEUTRAL, shape)
    if call.ledger.is_over_all(both and not inner and not batch and not headed, " of two kinds"):
        return Pair(rows=left.narrow(-1, 0, 1).expand(shape), columns=right.narrow(-2, 0, 1).expand(shape))
    if batch or inner or both or headed:
        return heads(call, [left, right], shape)
    side = left.narrow(-1, 0, 1) if varies(left, -2) else right.narrow(-2, 0, 1)
    return side.expand(shape)


def heads(call: OpCall, operands: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Attention: everything of one batch element (a head) goes together; heads are apart from each other."""
    tied = [call.ledger.collapse(ids, [ids.ndim - 1, ids.ndim - 2])[..., :1, :1] for ids in operands]
    return call.ledger.meet(tied, (*shape[:-2], 1, 1), "attention").expand(shape)


def attention(call: OpCall) -> Any:
    """Scaled dot-product attention on (..., positions, channels)."""
    query, value = call.ids("query"), call.ids("value")
    if call.ledger.is_over_all(call["attn_mask"] is None and _is_one_head(query, value, call.ids("key"))):
        first, second = (channels(call.ledger, ids, -1) for ids in (query, call.ids("key")))
        call.ledger.tie(first, second)
        if call["scale"] is None:
            call.ledger.keep(first, "attention is scaled by the root of their number")
        return value.narrow(-2, 0, 1).expand(call.shape)
    parts = [call.ids(name) for name in ("query", "key", "value")]
    return heads(call, parts + ([call.ids("attn_mask")] if call["attn_mask"] is not None else []), call.shape)


def _is_one_head(*operands: Tensor) -> bool:
    """Whether channels lie along the last dimension alone, and there are no heads."""
    beside = any(varies(ids, dim) for ids in operands for dim in range(ids.ndim - 1))
    return not beside and all(ids.ndim < 4 or ids.shape[-3] == 1 for ids in operands)


def einsum(call: OpCall) -> Any:
    """One or two factors by their subscripts: a permutation, a matrix product, or a product with a weight."""
    inputs, _, output = call["equation"].replace(" ", "").partition("->")
    terms, factors = inputs.split(","), call["tensors"]
    plain = output and "." not in inputs and all(len(set(term)) == len(term) for term in terms)
    if not plain or len(terms) > 2:
        return unknown(call)
    if len(terms) == 1:
        return (
            factors[0].permute([terms[0].index(one) for one in output]) if set(inputs) == set(output) else unknown(call)
        )
    if isinstance(factors[0], Weight):
        terms, factors = terms[::-1], factors[::-1]
    summed = [one for one in terms[0] if one in terms[1] and one not in output]
    if isinstance(factors[1], Weight):
        return _by_weight(call, terms, factors, summed, output)
    left, right = as_ids(call.ledger, factors[0]), as_ids(call.ledger, factors[1])
    shared = [one for one in output if one in terms[0] and one in terms[1]]
    shared = [one for one in shared if varies(left, terms[0].index(one)) or varies(right, terms[1].index(one))]
    alone = [
        _varying(ids, term, [one for one in term if one not in terms[0] or one not in terms[1]])
        for ids, term in ((left, terms[0]), (right, terms[1]))
    ]
    if len(summed) > 1 or any(len(names) > 1 for names in alone):
        return unknown(call)
    left = ordered(left, terms[0], [*shared, *(alone[0] or [""]), *(summed or [""])])
    right = ordered(right, terms[1], [*shared, *(summed or [""]), *(alone[1] or [""])])
    made = product(call, left, right, (*left.shape[:-1], right.shape[-1]))
    if not isinstance(made, Tensor):
        return unknown(call)
    return ordered(made, [*shared, *(alone[0] or ["_"]), *(alone[1] or ["_"])], list(output)).expand(call.shape)


def _by_weight(call: OpCall, terms: list[str], factors: list[Any], summed: list[str], output: str) -> Any:
    """(..., k, ...) and a weight with an axis k, a new axis, and others along which no channels lie."""
    new = [one for one in terms[1] if one not in terms[0]]
    ids, weight = as_ids(call.ledger, factors[0]), factors[1]
    beside = [one for one in terms[1] if one not in (*summed, *new)]
    fits = len(summed) == len(new) == 1 and all(one in output for one in beside) and not weight.turned
    if not fits or any(varies(ids, terms[0].index(one)) for one in beside):
        return unknown(call)
    if not varies(ids, terms[0].index(summed[0])) and any(varies(ids, dim) for dim in range(ids.ndim)):
        return ordered(ids, terms[0], list(output)).expand(call.shape)  # it mixes positions
    arriving, dim = channels(call.ledger, ids, terms[0].index(summed[0])), terms[1].index(new[0])
    call.ledger.tie(weight.axis(call.ledger, terms[1].index(summed[0]), len(arriving), "in"), arriving)
    return across(weight.axis(call.ledger, dim, weight.shape[dim], "out"), call.shape, output.index(new[0]))


def _varying(ids: Tensor, term: str, names: list[str]) -> list[str]:
    return [one for one in names if varies(ids, term.index(one))]


def ordered(ids: Tensor, names: str | list[str], wanted: list[str]) -> Tensor:
    """Dimensions called `names` in the order `wanted`: those not wanted are uniform, new ones have size 1."""
    for dim in reversed([dim for dim, one in enumerate(names) if one not in wanted]):
        ids = ids.select(dim, 0)
    left = [one for one in names if one in wanted]
    ids = ids.permute([left.index(one) for one in wanted if one in left])
    for dim, one in enumerate(wanted):
        ids = ids if one in left else ids.unsqueeze(dim)
    return ids
