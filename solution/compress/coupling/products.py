"""Rules for products of two activations, or of an activation and a weight: matrix products, attention, einsum."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from solution.compress.coupling.ids import KEPT, NEUTRAL, slim, uniform, varies
from solution.compress.coupling.layers import across, channels, dense, unknown
from solution.compress.coupling.walk import OpCall, Pair, Weight, as_ids


def matmul(call: OpCall) -> Any:
    """A product of two activations (..., n, k) and (..., k, m), or of an activation and a weight."""
    name = "other" if "other" in call.arguments else "mat2"
    left, right = call["self"], call[name]
    if isinstance(right, Weight) and len(right.shape) == 2:
        stored = replace(right, turned=not right.turned)
        return dense(call, call.ids("self"), stored, None)
    if isinstance(left, Weight) and len(left.shape) == 2:
        return _from_the_left(call, left, call.ids(name))
    return product(call, call.ids("self"), call.ids(name), call.shape)


def _from_the_left(call: OpCall, weight: Weight, right: Tensor) -> Any:
    """A weight (n, k) times (..., k, m): it reads channels along k, or mixes positions."""
    if right.ndim < 2:
        return unknown(call)
    if not varies(right, -2):
        return right.narrow(-2, 0, 1).expand(call.shape)
    reads, makes = (0, 1) if weight.turned else (1, 0)
    arriving = channels(call.ledger, right, -2)
    call.ledger.tie(weight.axis(call.ledger, reads, len(arriving), "in"), arriving)
    made = weight.axis(call.ledger, makes, call.shape[-2], "out")
    return across(made, call.shape, len(call.shape) - 2)


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
    left, right = _without_others(call, left, right)
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


def _without_others(call: OpCall, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors, where channels of the one are added up with numbers that have no such channels: these must stay."""
    sides = varies(left, -1), varies(right, -2)
    alone = sides[0] != sides[1] and min(left.ndim, right.ndim) < 4
    alone = alone and all(int(slim(ids).max()) > KEPT for ids in (left, right))
    alone = alone and not any(varies(ids, dim) for ids in (left, right) for dim in range(ids.ndim - 2))
    if not call.ledger.is_over_all(alone, " of one side"):
        return left, right
    summed = left if sides[0] else right
    call.ledger.keep(summed, "it is added up with numbers that have no such channels")
    other = uniform(NEUTRAL, summed.shape)
    return (other, right) if summed is left else (left, other)


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
    """Factors by their subscripts: a permutation, a matrix product, a product with a weight; more factors in turn."""
    factors, label = call["tensors"], call.ledger.label
    shapes = [
        factor.shape[::-1] if isinstance(factor, Weight) and factor.turned else factor.shape for factor in factors
    ]
    terms, output = subscripts(call["equation"], [len(shape) for shape in shapes])
    if not output or any(len(set(term)) != len(term) for term in terms):
        return unknown(call)
    if len(terms) == 1:
        order = [terms[0].index(one) for one in output]
        return factors[0].permute(order) if len(order) == len(terms[0]) else unknown(call)
    sizes = {
        one: size for term, shape in zip(terms, shapes, strict=True) for one, size in zip(term, shape, strict=True)
    }
    term, made = terms[0], factors[0]
    for number in range(1, len(terms)):
        later = "".join((output, *terms[number + 1 :]))
        left = (
            output if later == output else "".join(one for one in sizes if one in later and one in term + terms[number])
        )
        call.ledger.label = label if number == 1 else f"{label} {number}"
        shape = tuple(sizes[one] for one in left)
        made, term = _of_two(call, [term, terms[number]], [made, factors[number]], left, shape), left
        if made is None:
            break
    call.ledger.label = label
    return unknown(call) if made is None else made


def subscripts(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The terms of an einsum and what it returns, a letter for each dimension, those of an ellipsis too."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        output = "..." * ("." in inputs) + "".join(
            sorted(one for one in set(inputs) - set(",.") if inputs.count(one) == 1)
        )
    spare = "".join(one for one in ascii_letters if one not in equation)
    more = [rank - len(term) + 3 if "." in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    terms = [term.replace("...", spare[-some:] if some else "") for term, some in zip(terms, more, strict=True)]
    return terms, output.replace("...", spare[-max(more) :] if max(more) else "")


def _of_two(call: OpCall, terms: list[str], factors: list[Any], output: str, shape: tuple[int, ...]) -> Tensor | None:
    """Two factors multiplied, and summed over what is not in `output`; None where that is not followed."""
    if isinstance(factors[0], Weight):
        terms, factors = terms[::-1], factors[::-1]
    summed = [one for one in terms[0] if one in terms[1] and one not in output]
    if isinstance(factors[1], Weight):
        return _by_weight(call, terms, factors, summed, output, shape)
    left, right = as_ids(call.ledger, factors[0]), as_ids(call.ledger, factors[1])
    along = [set(_varying(ids, term, list(term))) for ids, term in ((left, terms[0]), (right, terms[1]))]
    shared = [one for one in output if one in terms[0] and one in terms[1] and one in along[0] | along[1]]
    alone = [[one for one in term if one in some and one not in other]
             for term, some, other in ((terms[0], along[0], terms[1]), (terms[1], along[1], terms[0]))]  # fmt: skip
    for number, other in ((0, 1), (1, 0)):
        gates = along[number] & set(shared) and not alone[number] and alone[other] and along[other] == set(alone[other])
        if call.ledger.is_over_all(bool(gates), f" of a gate {number}"):
            call.ledger.keep((left, right)[number], "einsum multiplies other channels by it")
            return ordered((left, right)[other], terms[other], list(output)).expand(shape)
    summed = [one for one in summed if one in along[0] | along[1]]
    if any(set(names) - set(output) for names in alone):
        return None
    spare = summed[1:] + alone[0][1:] + alone[1][1:]  # one kind of channels along each side of a product
    left, right = (
        call.ledger.collapse(ids, [term.index(one) for one in spare if one in term])
        for ids, term in ((left, terms[0]), (right, terms[1]))
    )
    summed, alone = summed[:1], [names[:1] for names in alone]
    left = ordered(left, terms[0], [*shared, *(alone[0] or [""]), *(summed or [""])])
    right = ordered(right, terms[1], [*shared, *(summed or [""]), *(alone[1] or [""])])
    if not (summed or any(alone)):
        made = call.ledger.meet([left, right], torch.broadcast_shapes(left.shape, right.shape), "einsum")
    else:
        made = product(call, left, right, (*left.shape[:-1], right.shape[-1]))
    if not isinstance(made, Tensor):
        return None
    return ordered(made, [*shared, *(alone[0] or ["_"]), *(alone[1] or ["_"])], list(output)).expand(shape)


def _by_weight(
    call: OpCall, terms: list[str], factors: list[Any], summed: list[str], output: str, shape: tuple[int, ...]
) -> Tensor | None:
    """(..., k, ...) and a weight with an axis k, new axes, and others along which channels go together."""
    ids, weight = as_ids(call.ledger, factors[0]), factors[1]
    new = [one for one in terms[1] if one not in terms[0]]
    shared = [one for one in terms[1] if one in terms[0]]
    alone = [one for one in _varying(ids, terms[0], list(terms[0])) if one not in terms[1]]
    if weight.turned or not new or not summed or any(one not in output for one in alone):
        return None
    if alone:  # it mixes positions
        mixed = call.ledger.collapse(ids, [terms[0].index(one) for one in shared])
        return ordered(mixed, terms[0], list(output)).expand(shape)
    read = (_varying(ids, terms[0], summed) or summed)[0]
    if call.ledger.is_over_all(any(one not in output for one in shared if one not in summed), " beside"):
        return None
    ids = call.ledger.collapse(ids, [terms[0].index(one) for one in shared if one != read])
    arriving = channels(call.ledger, ids, terms[0].index(read))
    call.ledger.tie(weight.axis(call.ledger, terms[1].index(read), len(arriving), "in"), arriving)
    if len(new) == 1:
        dim = terms[1].index(new[0])
        return across(weight.axis(call.ledger, dim, weight.shape[dim], "out"), shape, output.index(new[0]))
    return ordered(call.ledger.makes(weight.name, weight.shape, [terms[1].index(one) for one in new]),
                   new, list(output)).expand(shape)  # fmt: skip


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
