"""Numbers that belong to two channels at once, and live while both of them do.

Such are the numbers of a kernel that a net computes (mixed from several by a router, scaled by a style): an output and
an input each. And those of a product of all channels with all channels: attention between channels, linear attention.
What is done to them is followed twice, once for the rows and once for the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from solution.compress.coupling.ids import NEUTRAL, uniform, varies
from solution.compress.coupling.layers import across, carry, channels, unknown
from solution.compress.coupling.products import ordered
from solution.compress.coupling.walk import OpCall, Pair, Weight, as_ids


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
