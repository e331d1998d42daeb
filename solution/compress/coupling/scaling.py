"""Numbers that a forward computes from a width and multiplies with, made up for in a weight.

An equalized layer multiplies its weight by the root of 2 over the number of its inputs (Karras et al., "Progressive
Growing of GANs", 2018), attention divides by the root of a width. With fewer channels the number is another one; the
weight that it is multiplied with, or a layer just before or after, is scaled so that their product stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from solution.compress.coupling.movement import MOVES, VIEWS
from solution.compress.coupling.recorder import Recorded, Ref
from solution.compress.coupling.tracing import Trace, refs_in

PARTING = frozenset(("split", "split_with_sizes", "chunk", "tensor_split", "hsplit", "vsplit", "unbind"))
MOVED = frozenset((*MOVES.split(), *VIEWS, "expand", "flatten", "clone", "contiguous")) - PARTING
PROPORTIONAL = MOVED | {"mul", "div", "neg", "sub", "mean", "sum"}
LAYERS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear")


def kind(call: Recorded) -> str:
    """The operator's name without overload and without the underscore of its in-place form."""
    return call.op._overloadpacket.__name__.rstrip("_")


def factor(one: Recorded, other: Recorded) -> float | None:
    """How many times more `one` multiplies with than `other`; None where they differ in anything but such a number."""
    if one.op is not other.op or kind(one) not in ("mul", "div"):
        return None
    mine, theirs = one.arguments.get("other"), other.arguments.get("other")
    if not isinstance(mine, int | float) or not isinstance(theirs, int | float) or not mine or not theirs:
        return None
    if {**one.arguments, "other": 0} != {**other.arguments, "other": 0}:
        return None
    return mine / theirs if kind(one) == "mul" else theirs / mine


def _is_proportional(call: Recorded) -> bool:
    """Whether it gives twice as much for operands twice as large."""
    products = kind(call) in ("mul", "div") and len(refs_in(list(call.arguments.values()))) > 1
    return kind(call) in PROPORTIONAL and not products


class Flow:
    """Who makes and who reads the tensors of a pass, as far as outputs depend on them."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.maker = {ref.number: call for call in trace.calls for ref in refs_in(call.made)}

    @cached_property
    def readers(self) -> Mapping[int, list[Recorded]]:
        """Number of a tensor -> the calls that read it."""
        alive = {ref.number for ref in refs_in(self.trace.outputs)}
        found: dict[int, list[Recorded]] = {}
        for call in reversed(self.trace.calls):
            if call.op._schema.is_mutable or any(ref.number in alive for ref in refs_in(call.made)):
                for ref in refs_in(list(call.arguments.values())):
                    alive.add(ref.number)
                    found.setdefault(ref.number, []).append(call)
        return found

    def weights(self, call: Recorded) -> list[str] | None:
        """Parameters that make up for another number in `call`, each scaled as the product is to be."""
        operand = call.arguments["self"]
        if not isinstance(operand, Ref) or not isinstance(call.made, Ref):
            return None
        for found in (self._computed(operand, call), self._producer(operand, call), self._consumers(call.made)):
            if found:
                return found
        return None

    def _is_own(self, value: object, *readers: Recorded) -> bool:
        """Whether it is a parameter that nobody else reads."""
        return (
            isinstance(value, Ref)
            and self.trace.source(value) in self.trace.parameters
            and all(any(call is one for one in readers) for call in self.readers.get(value.number, ()))
        )

    def _computed(self, operand: Ref, call: Recorded) -> list[str] | None:
        """The one parameter of which the operand is computed, in proportion."""
        calls, sources, waiting = [call], [], [operand]
        while waiting:
            ref = waiting.pop()
            maker = self.maker.get(ref.number)
            if maker is None:
                sources.append(ref)
            elif not _is_proportional(maker):
                return None
            elif all(maker is not one for one in calls):
                calls.append(maker)
                waiting += refs_in(list(maker.arguments.values()))
        if len(set(sources)) != 1 or not self._is_own(sources[0], *calls):
            return None
        return [self.trace.source(sources[0]) or ""]

    def _producer(self, operand: Ref, reader: Recorded) -> list[str] | None:
        """Weight and bias of the layer whose result, moved or in a product, nobody else reads."""
        maker = self.maker.get(operand.number)
        if maker is None or any(call is not reader for call in self.readers.get(operand.number, ())):
            return None
        if kind(maker) in LAYERS:
            return self._of_layer(maker, ("weight", "bias"))
        source = maker.arguments.get("self")
        is_passed = kind(maker) in MOVED or kind(maker) in ("matmul", "bmm")
        return self._producer(source, maker) if is_passed and isinstance(source, Ref) else None

    def _consumers(self, made: Ref) -> list[str] | None:
        """Weights of the layers that read the product, where these alone do."""
        found: list[str] = []
        for reader in self.readers.get(made.number, ()):
            weights = self._of_layer(reader, ("weight",)) if reader.arguments.get("input") == made else None
            if weights is None:
                return None
            found += weights
        return found

    def _of_layer(self, call: Recorded, names: tuple[str, ...]) -> list[str] | None:
        tensors = [call.arguments.get(name) for name in names if call.arguments.get(name) is not None]
        if kind(call) not in LAYERS or not all(self._is_own(tensor, call) for tensor in tensors):
            return None
        return [self.trace.source(tensor) or "" for tensor in tensors if isinstance(tensor, Ref)]
