"""Rules for numbers that belong to two channels at once and live while both of them do: computed kernels, attention
between channels. A call is followed once for the rows and once for the columns.
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
    weighted = call.name.startswith("conv") or call.name == "linear"
    if call.name == "batch_norm" or (weighted and isinstance(call["weight"], Weight)):
        found = _through(call, rule)
    elif weighted:
        found = _layer(call)
    elif call.name in ("matmul", "bmm", "mm"):
        found = _product(call)
    elif call.name == "einsum":
        found = _einsum(call)
    else:
        found = _twice(call, rule)
    return given_up(call) if found is None else found


def is_paired(call: OpCall) -> bool:
    """Whether `paired` is the one to follow it."""
    kernel = call["weight"] if call.name.startswith("conv") else None
    return isinstance(kernel, Tensor) or bool(_pairs(call))


def _pairs(call: OpCall) -> list[Pair]:
    values = [one for value in call.arguments.values() for one in (value if isinstance(value, list) else [value])]
    return [one for one in values if isinstance(one, Pair)]


def given_up(call: OpCall) -> Any:
    """A call that cannot be followed: everything that enters it stays, pairs too."""
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
    if any(_from_the_right(ids) & rows & columns for ids in known):
        return None
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


def _through(call: OpCall, rule: Callable[[OpCall], Any]) -> Any:
    """A layer on a pair: channels of the one kind are read and made, or carried; those of the other kind lie beside."""
    pair, weight = call["input"], call["weight"]
    if not isinstance(pair, Pair):
        return None
    ids, window = pair.rows, weight.shape[2:] if call.name.startswith("conv") else ()
    dim = 1 if call.name == "batch_norm" else ids.ndim - 1 - len(window)
    along = [[other for other in range(ids.ndim) if varies(ids, other)] for ids in (pair.rows, pair.columns)]
    wide = {dim + 1 + place for place, size in enumerate(window) if size > 1 or call.shape[dim + 1 + place] == 1}
    if any(wide & set(dims) for dims in along) or all(dim in dims for dims in along):
        return None
    sides = []
    for ids, dims in zip((pair.rows, pair.columns), along, strict=True):
        if dim not in dims:
            sides.append(ids.narrow(dim, 0, 1).expand(call.shape))
        elif dims == [dim]:
            sides.append(rule(replace(call, arguments={**call.arguments, "input": ids})))
        else:
            return None
    return Pair(rows=sides[0], columns=sides[1])


def _layer(call: OpCall) -> Tensor | None:
    """A convolution or product with a kernel that is computed, such as one kernel a sample in as many groups."""
    kernel, transposed = call["weight"], "transpose" in call.name
    if not isinstance(call["input"], Tensor) or not isinstance(kernel, Tensor | Pair):
        return None
    ids, groups = call.ids("input"), call["groups"] or 1
    dim = ids.ndim - 1 if call.name == "linear" else ids.ndim + 1 - as_shape(kernel).ndim
    arriving = channels(call.ledger, ids, dim)
    if isinstance(kernel, Tensor):
        kernel = call.ledger.collapse(kernel, range(2, kernel.ndim))
        along = [dim for dim in range(kernel.ndim) if varies(kernel, dim)]
        if not along and kernel.shape[1] == 1 and groups == len(kernel) == len(arriving):
            call.ledger.keep(kernel, "it is one filter of all channels")
            carry(call.ledger, call["bias"], arriving)
            return across(arriving, call.shape, 1)
        if along not in ([0], [1]):
            return None
        blank = uniform(NEUTRAL, kernel.shape)
        kernel = Pair(rows=kernel, columns=blank) if along == [0] else Pair(rows=blank, columns=kernel)
    outputs, inputs = kernel.rows, kernel.columns
    if {outputs.ndim} == _from_the_right(inputs) != _from_the_right(outputs):  # of a kernel that was turned
        outputs, inputs = inputs, outputs
    if transposed:
        if groups > 1:
            return None
        outputs, inputs = outputs.transpose(0, 1), inputs.transpose(0, 1)
    made = channels(call.ledger, outputs, 0)
    first: tuple[Any, ...] = (..., *[0] * (inputs.ndim - 2))
    read = call.ledger.collapse(inputs, range(2, inputs.ndim))[first]
    if groups == len(arriving) > 1 and len(made) % len(arriving) == 0 and read.shape[1] == 1:
        every = arriving.repeat_interleave(len(made) // len(arriving))
        call.ledger.tie(every, made)
        made = every
    else:
        for rows, part in zip(read.chunk(groups), arriving.chunk(groups), strict=True):
            call.ledger.tie(channels(call.ledger, rows, 1), part)
    carry(call.ledger, call["bias"], made)
    return across(made, call.shape, dim)


def as_shape(kernel: Tensor | Pair) -> Tensor:
    """A tensor of the kernel's shape."""
    return kernel.rows if isinstance(kernel, Pair) else kernel


def _product(call: OpCall) -> Any:
    """Products (..., n, k) times (..., k, m) of pairs: the channels along k meet, at most two kinds are left."""
    name = "other" if "other" in call.arguments else "mat2"
    factors = (call["self"], call[name])
    if any(not isinstance(one, Pair) and as_ids(call.ledger, one).ndim < 2 for one in factors):
        return None
    sides: list[list[Any]] = [
        [one.rows, one.columns] if isinstance(one, Pair) else [as_ids(call.ledger, one), None] for one in factors
    ]
    met: list[Tensor] = []
    for side, inner in zip(sides, (-1, -2), strict=True):
        for number, ids in enumerate(side):
            if ids is not None and varies(ids, inner):
                if _from_the_right(ids) != {-inner}:
                    return None
                met.append(channels(call.ledger, ids, inner))
                side[number] = None
    if len(met) == 2:
        call.ledger.tie(*met)
    elif met:
        call.ledger.keep(met[0], "it says what kernels are mixed of")
    left = [
        None if ids is None or not _from_the_right(ids) else ids.narrow(inner, 0, 1).expand(call.shape)
        for side, inner in zip(sides, (-1, -2), strict=True)
        for ids in side
    ]
    there = [ids for ids in left if ids is not None]
    if len(there) > 2:
        return None
    return _both(*there) if len(there) == 2 else there[0] if there else uniform(NEUTRAL, call.shape)


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
