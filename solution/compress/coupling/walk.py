"""Sending ids through a traced pass, one rule per kind of call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solution.compress.coupling.derived import Kernels, derived_weights
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
from solution.compress.coupling.recorder import Recorded, Ref
from solution.compress.coupling.tracing import Trace, refs_in


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A parameter or buffer of the model, before anything was done to it but moving its two axes.

    name     its name in the model
    turned   its two axes are swapped
    along    (name, axis, axis of this tensor) of what is computed with it before use and goes along with its channels
    part     (first, of how many) rows of the stored tensor that it is, where it is not all of them
    """

    name: str
    shape: tuple[int, ...]
    turned: bool = False
    along: tuple[tuple[str, int, int], ...] = ()
    part: tuple[int, int] | None = None

    def axis(self, ledger: ChannelIds, axis: int, length: int, role: str, groups: int = 1) -> Tensor:
        """The ids (length,) of one of its axes."""
        if self.part is None or axis != 0:
            return ledger.axis(self.name, axis, length, role, groups)
        first, every = self.part
        return ledger.axis(self.name, 0, every, role, groups)[first : first + length]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Ids of numbers that belong to two channels, each of the tensor's shape; they vary along different dimensions."""

    rows: Tensor
    columns: Tensor

    def apart(self) -> dict[str, Tensor]:
        """Each of the two, narrowed to size 1 along the dimensions of the other."""
        places = [slice(0, 1) if varies(self.columns, dim) else slice(None) for dim in range(self.rows.ndim)]
        others = [slice(0, 1) if varies(self.rows, dim) else slice(None) for dim in range(self.rows.ndim)]
        return {" rows": self.rows[tuple(places)], " columns": self.columns[tuple(others)]}


@dataclass(frozen=True, kw_only=True)
class OpCall:
    """One call of the graph: its arguments by the names of the operator's schema, and the shape of what it returns.

    picks  it returns indices that are read later
    """

    ledger: ChannelIds
    op: torch._ops.OpOverload
    label: str
    arguments: Mapping[str, Any]
    result: Any
    picks: bool = False

    @property
    def name(self) -> str:
        """The operator's name without overload and without the underscore of its in-place form."""
        return self.op._overloadpacket.__name__.rstrip("_")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the one tensor that it returns."""
        return tuple(self.result.shape)

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def ids(self, name: str) -> Tensor:
        """Ids of the argument called `name`; numbers and None are neutral."""
        return as_ids(self.ledger, self.arguments.get(name))

    def tensors(self) -> list[Tensor]:
        """Ids of every tensor among the arguments, lists looked through."""
        found: list[Tensor] = []
        for value in self.arguments.values():
            items = value if isinstance(value, list | tuple) else [value]
            found += [as_ids(self.ledger, item) for item in items if isinstance(item, Tensor | Weight)]
        return found


Rule = Callable[[OpCall], Any]


def as_ids(ledger: ChannelIds, value: Any) -> Tensor:
    """The ids of an activation, of a parameter's elements, or of a number."""
    if isinstance(value, Weight):
        shape = value.shape[::-1] if value.turned else value.shape
        first, every = value.part or (0, shape[0] if shape else 0)
        ids = ledger.tensor_elements(value.name, (every, *shape[1:]) if shape else shape)
        ids = ids if value.part is None else ids[first : first + shape[0]]
        return ids.t() if value.turned else ids
    return value if isinstance(value, Tensor) else torch.tensor(NEUTRAL)


Values = dict[int, Any]
"""Number of a `Ref` -> its ids, or the `Weight` or `Pair` that it is."""


def walk(trace: Trace, ledger: ChannelIds, rule: Rule, keeps_output: Callable[[int], bool]) -> None:
    """Send ids through `trace` and note in `ledger` what they meet. Outputs that `keeps_output` chooses must stay."""
    values, views = _sources(trace), _Views()
    derived, between, kernels = derived_weights(trace)
    for kernel, axes in kernels.items():
        values[kernel] = _kernel(values[kernel], axes, trace.tensors[kernel] in trace.parameters, ledger)
    read, unread = _read(trace)
    for call in trace.calls:
        number = call.made.number if isinstance(call.made, Ref) else None
        if number in derived:
            source, along = derived[number].source, derived[number].along
            named = tuple((values[other].name, axis, whose) for other, axis, whose in along)
            values[number] = replace(values[source], along=named)
            ledger.derived.add(values[source].name)
        elif number in between or id(call) in unread:
            values.update(dict.fromkeys((ref.number for ref in refs_in(call.made)), None))
        else:
            _assign(call.made, _called(call, values, ledger, rule, trace.mode, read), values)
            views.note(call, values, ledger)
    _keep_outputs(_looked_up(trace.outputs, values), ledger, keeps_output, trace.mode)


def _read(trace: Trace) -> tuple[set[int], set[int]]:
    """Numbers of the tensors that are read, and identities of the calls that only make views which nobody reads, such
    as a row of a weight of which a forward takes the size.
    """
    read, unread = {ref.number for ref in refs_in(trace.outputs)}, set()
    for call in reversed(trace.calls):
        if _is_view(call) and not any(ref.number in read for ref in refs_in(call.made)):
            unread.add(id(call))
        else:
            read |= {ref.number for ref in refs_in(list(call.arguments.values()))}
    return read, unread


def _is_view(call: Recorded) -> bool:
    schema = call.op._schema
    return not schema.is_mutable and any(argument.alias_info is not None for argument in schema.arguments)


def _kernel(weight: Weight, axes: Kernels, learned: bool, ledger: ChannelIds) -> Pair:
    shape = weight.shape
    sides = []
    for dim, role in zip((axes.rows, axes.columns), ("in", "out") if axes.transposed else ("out", "in"), strict=True):
        view = [-1 if other == dim else 1 for other in range(len(shape))]
        ids = ledger.axis(weight.name, dim, shape[dim], role if learned else "with") if shape[dim] > 1 else None
        sides.append(uniform(NEUTRAL, shape) if ids is None else ids.view(view).expand(shape))
    return Pair(rows=sides[0], columns=sides[1])


class _Views:
    """Which tensors are views of others: what is written into a view is written into what it is a view of."""

    def __init__(self) -> None:
        self.of: dict[int, tuple[int, Recorded, int]] = {}

    def note(self, call: Recorded, values: Values, ledger: ChannelIds) -> None:
        """Look at a call whose results are in `values`."""
        source = call.arguments.get("self")
        made = refs_in(call.made)
        results = call.result if isinstance(call.result, list | tuple) else [call.result]
        if not isinstance(source, Ref) or not made or not isinstance(results[0], Tensor):
            return
        if call.op._schema.is_mutable:
            if source.number in self.of:
                self.of[made[0].number] = self.of[source.number]
                values[made[0].number] = self._told_apart(values[made[0].number], values[self.of[source.number][0]])
                self._write(made[0].number, values, ledger)
        elif _is_view(call):
            self.of |= {ref.number: (source.number, call, place) for place, ref in enumerate(made)}

    def _told_apart(self, part: Any, whole: Any) -> Any:
        """Constants written into a part of a constant: they are not those of the rest."""
        if not isinstance(part, Tensor) or not isinstance(whole, Tensor) or part.numel() >= whole.numel():
            return part
        return uniform(KEPT, part.shape) if is_neutral(part) and is_neutral(whole) else part

    def _write(self, view: int, values: Values, ledger: ChannelIds) -> None:
        whole, call, place = self.of[view]
        into, ids = values[whole], values[view]
        if not isinstance(into, Tensor) or not isinstance(ids, Tensor):
            return
        if into.numel() > MOST_ELEMENTS:
            ledger.keep(ids, "it is written into a part of a tensor")
            return
        copy = into.clone(memory_format=torch.contiguous_format)
        arguments = {name: value for name, value in call.arguments.items() if name != "self"}
        found = call.op(copy, **arguments)
        part = found[place] if isinstance(found, list | tuple) else found
        part.copy_(ids)
        values[whole] = packed(copy)
        if whole in self.of:
            self._write(whole, values, ledger)


def _sources(trace: Trace) -> Values:
    values: Values = {one.number: uniform(KEPT, trace.shape(one)) for one in trace.inputs}
    for number, name in enumerate(trace.tensors):
        values[number] = Weight(name=name, shape=trace.shapes[number])
    for number in trace.constants:
        shape = torch.Size(trace.shapes[number])
        values[number] = uniform(KEPT if shape.numel() > 1 else NEUTRAL, shape)
    return values


def _assign(made: Any, ids: Any, values: Values) -> None:
    if isinstance(made, Ref):
        values[made.number] = ids
    elif isinstance(made, list):
        for one, its_ids in zip(made, ids if ids is not None else [None] * len(made), strict=True):
            _assign(one, its_ids, values)


def _looked_up(value: Any, values: Values) -> Any:
    if isinstance(value, Ref):
        return values[value.number]
    return [_looked_up(item, values) for item in value] if isinstance(value, list) else value


def _called(call: Recorded, values: Values, ledger: ChannelIds, rule: Rule, mode: str, read: set[int]) -> Any:
    arguments = {name: _looked_up(argument, values) for name, argument in call.arguments.items()}
    ledger.label = f"{mode} {call.name}"
    items = {name: argument if isinstance(argument, list) else [argument] for name, argument in arguments.items()}
    is_paired = any(isinstance(one, Pair) for argument in items.values() for one in argument)
    for name, argument in items.items():
        for number, one in enumerate(argument):
            for slot, ids in one.apart().items() if isinstance(one, Pair) else (("", one),):
                if isinstance(ids, Tensor):
                    ledger.passes(f"{name} {number}{slot}", slim(ids) if is_paired else ids)
    results = call.result if isinstance(call.result, list | tuple) else ()
    picks = any(
        isinstance(one, Tensor) and not one.is_floating_point() and ref is not None and ref.number in read
        for one, ref in zip(results, refs_in(call.made), strict=False)
    )
    return rule(
        OpCall(ledger=ledger, op=call.op, label=ledger.label, arguments=arguments, result=call.result, picks=picks)
    )


def _keep_outputs(outputs: list[Any], ledger: ChannelIds, keeps_output: Callable[[int], bool], mode: str) -> None:
    leaves = [leaf for leaf in outputs if isinstance(leaf, Tensor | Weight | Pair)]
    for position, leaf in enumerate(leaves):
        if isinstance(leaf, Pair):
            for ids in (leaf.rows, leaf.columns):
                ledger.keep(ids, "it is an output")
        elif keeps_output(position):
            ledger.output(f":{mode} output {position}", as_ids(ledger, leaf))
