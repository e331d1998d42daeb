"""Rules for products of two activations (matrix products, attention, einsum), and numbers that belong to two channels
at once and live while both of them do: computed kernels, attention between channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from solution.compress.coupling.ids import KEPT, NEUTRAL, slim, uniform, varies
from solution.compress.coupling.layers import across, carry, channels, dense, unknown
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
    summed = [one for one in summed if one in along[0] | along[1]]
    if len(summed) > 1 or any(len(names) > 1 or set(names) - set(output) for names in alone):
        return None
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
    """(..., k, ...) and a weight with an axis k, a new axis, and others along which no channels lie."""
    new = [one for one in terms[1] if one not in terms[0]]
    ids, weight = as_ids(call.ledger, factors[0]), factors[1]
    beside = [one for one in terms[1] if one not in (*summed, *new)]
    fits = len(summed) == len(new) == 1 and all(one in output for one in beside) and not weight.turned
    if not fits or any(varies(ids, terms[0].index(one)) for one in beside):
        return None
    if not varies(ids, terms[0].index(summed[0])) and any(varies(ids, dim) for dim in range(ids.ndim)):
        return ordered(ids, terms[0], list(output)).expand(shape)  # it mixes positions
    arriving, dim = channels(call.ledger, ids, terms[0].index(summed[0])), terms[1].index(new[0])
    call.ledger.tie(weight.axis(call.ledger, terms[1].index(summed[0]), len(arriving), "in"), arriving)
    return across(weight.axis(call.ledger, dim, weight.shape[dim], "out"), shape, output.index(new[0]))


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


def paired(call: OpCall, rule: Callable[[OpCall], Any]) -> Any:
    """The ids of what `call` returns: its arguments hold a `Pair`, or it convolves with a kernel of activations."""
    if call.name.startswith("conv") or call.name == "linear":
        found = _layer(call)
    elif call.name in ("matmul", "bmm"):
        found = _product(call)
    elif call.name == "einsum":
        found = _einsum(call)
    else:
        found = _twice(call, rule)
    return _given_up(call) if found is None else found


def is_paired(call: OpCall) -> bool:
    """Whether `paired` is the one to follow it."""
    kernel = call["weight"] if call.name.startswith("conv") else None
    return isinstance(kernel, Tensor) or bool(_pairs(call))


def _pairs(call: OpCall) -> list[Pair]:
    values = [one for value in call.arguments.values() for one in (value if isinstance(value, list) else [value])]
    return [one for one in values if isinstance(one, Pair)]


def _given_up(call: OpCall) -> Any:
    for pair in _pairs(call):
        for ids in (pair.rows, pair.columns):
            call.ledger.keep(ids, f"{call.name} is not followed")
    return unknown(call)


def _from_the_right(ids: Tensor) -> set[int]:
    return {ids.ndim - dim for dim in range(ids.ndim) if varies(ids, dim)}


def _twice(call: OpCall, rule: Callable[[OpCall], Any]) -> Any:
    """Once for the rows, once for the columns; other operands go along with those that they have the dimensions of."""
    rows = set().union(*(_from_the_right(pair.rows) for pair in _pairs(call)))
    columns = set().union(*(_from_the_right(pair.columns) for pair in _pairs(call)))
    known = [as_ids(call.ledger, one) for one in _operands(call) if not isinstance(one, Pair)]
    beside = [ids for ids in known if not _from_the_right(ids) & (rows | columns)]
    if any(
        not (_from_the_right(ids) <= rows or _from_the_right(ids) <= columns or any(ids is one for one in beside))
        for ids in known
    ):
        return None
    for ids in beside:
        if _from_the_right(ids):
            call.ledger.keep(ids, "it says what kernels are mixed of")

    def side(value: Any, of_rows: bool) -> Any:
        if isinstance(value, list):
            return [side(one, of_rows) for one in value]
        if isinstance(value, Pair):
            return value.rows if of_rows else value.columns
        if isinstance(value, Tensor | Weight):
            ids = as_ids(call.ledger, value)
            along = _from_the_right(ids)
            meets = (along <= rows) == of_rows and (not along or along & (rows | columns))
            return ids if meets else uniform(NEUTRAL, ids.shape)
        return value

    results, label = [], call.label
    for of_rows in (True, False):
        call.ledger.label = f"{label} {'rows' if of_rows else 'columns'}"
        arguments = {name: side(value, of_rows) for name, value in call.arguments.items()}
        results.append(rule(replace(call, label=call.ledger.label, arguments=arguments)))
    call.ledger.label = label
    if isinstance(results[0], list | tuple):
        return [_both(one, other) for one, other in zip(*results, strict=True)]
    return _both(*results)


def _operands(call: OpCall) -> list[Any]:
    values = [one for value in call.arguments.values() for one in (value if isinstance(value, list) else [value])]
    return [one for one in values if isinstance(one, Tensor | Weight | Pair)]


def _both(rows: Any, columns: Any) -> Any:
    if not isinstance(rows, Tensor) or not isinstance(columns, Tensor) or not _from_the_right(columns):
        return rows
    return Pair(rows=rows, columns=columns) if _from_the_right(rows) else columns


def _layer(call: OpCall) -> Tensor | None:
    """A convolution or product with a kernel that is computed, such as one kernel a sample in as many groups."""
    kernel = call["weight"]
    if not isinstance(call["input"], Tensor) or "transpose" in call.name or not isinstance(kernel, Tensor | Pair):
        return None
    if isinstance(kernel, Tensor):
        kernel = call.ledger.collapse(kernel, range(2, kernel.ndim))
        along = [dim for dim in range(kernel.ndim) if varies(kernel, dim)]
        arriving = channels(call.ledger, call.ids("input"), 1)
        if not along and kernel.shape[1] == 1 and call["groups"] == len(kernel) == len(arriving):
            call.ledger.keep(kernel, "it is one filter of all channels")
            carry(call.ledger, call["bias"], arriving)
            return across(arriving, call.shape, 1)
        if along not in ([0], [1]):
            return None
        blank = uniform(NEUTRAL, kernel.shape)
        kernel = Pair(rows=kernel, columns=blank) if along == [0] else Pair(rows=blank, columns=kernel)
    if _from_the_right(kernel.rows) - {kernel.rows.ndim} or kernel.rows.ndim in _from_the_right(kernel.columns):
        return None
    dim = call.ids("input").ndim - 1 if call.name == "linear" else call.ids("input").ndim - kernel.rows.ndim + 1
    arriving, groups = channels(call.ledger, call.ids("input"), dim), call["groups"] or 1
    made, read = kernel.rows.flatten(1)[:, 0], kernel.columns.flatten(2)[..., 0]
    if read.shape[1] == 1 and len(made) % len(arriving) == 0:
        made = arriving.repeat_interleave(len(made) // len(arriving))
        call.ledger.tie(made, kernel.rows.flatten(1)[:, 0])
    else:
        for number, part in enumerate(arriving.chunk(groups)):
            call.ledger.tie(read[number * len(made) // groups], part)
    carry(call.ledger, call["bias"], made)
    return across(made, call.shape, dim)


def _product(call: OpCall) -> Any:
    """A pair (..., n, k) times (..., k, m), or the other way round: the channels along k meet."""
    name = "other" if "other" in call.arguments else "mat2"
    left, right = call["self"], call[name]
    turned = not isinstance(left, Pair)
    pair, other = (right, left) if turned else (left, right)
    if not isinstance(pair, Pair) or not isinstance(other, Tensor) or other.ndim < 2:
        return None
    inner, outer = (-2, -1) if turned else (-1, -2)
    met = next((ids for ids in (pair.rows, pair.columns) if varies(ids, inner)), None)
    if met is None or varies(met, outer) or not varies(other, outer):
        return None
    rest = pair.columns if met is pair.rows else pair.rows
    call.ledger.tie(channels(call.ledger, met, inner), channels(call.ledger, other, outer))
    rest = rest.narrow(inner, 0, 1).expand(call.shape)
    if not varies(other, inner):
        return rest
    return None


def _einsum(call: OpCall) -> Any:
    """A pair and one other factor by their subscripts."""
    inputs, _, output = call["equation"].replace(" ", "").partition("->")
    terms, factors = inputs.split(","), call["tensors"]
    if len(terms) != 2 or not output or "." in inputs or sum(isinstance(one, Pair) for one in factors) != 1:
        return None
    place = next(number for number, one in enumerate(factors) if isinstance(one, Pair))
    pair, term, other, its = factors[place], terms[place], as_ids(call.ledger, factors[1 - place]), terms[1 - place]
    for ids in (pair.rows, pair.columns):
        if any(varies(ids, dim) and letter not in output for dim, letter in enumerate(term)):
            return None
    for dim, letter in enumerate(its):
        if varies(other, dim) and letter not in output:
            call.ledger.keep(other, "it says what kernels are mixed of")
        elif varies(other, dim):
            met = [ids for ids in (pair.rows, pair.columns) if letter in term and varies(ids, term.index(letter))]
            if not met:
                return None
            call.ledger.tie(channels(call.ledger, met[0], term.index(letter)), channels(call.ledger, other, dim))
    rows, columns = (ordered(ids, term, list(output)).expand(call.shape) for ids in (pair.rows, pair.columns))
    return _both(rows, columns)
