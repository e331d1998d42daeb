"""Whether a net at other sizes computes what the full one does: the calls of two passes side by side.

A forward can use its own width: divide by its root, branch on it, loop over it. A net at other sizes then computes
something else. Numbers that only locate elements may differ, for channel ids show what follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from solution.compress.coupling.movement import MOVES, VIEWS
from solution.compress.coupling.recorder import Recorded, Ref
from solution.compress.coupling.scaling import Flow, factor
from solution.compress.coupling.tracing import Trace, refs_in

SIZES = frozenset(("size", "shape", "sizes", "normalized_shape", "groups", "num_groups", "repeats"))
"""Arguments that are sizes: what is wrong with them shows in shapes."""
MOVING = frozenset((*MOVES.split(), *VIEWS, "expand", "expand_as", "broadcast_to", "as_strided"))


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first call that differs.

    position  its place among the calls of the full pass
    reason    what differs
    steps     whether other sizes may agree: a branch was taken otherwise; a number alone differs at all sizes
    """

    position: int
    reason: str
    steps: bool


def divergence(
    full: Trace, small: Trace, ended: bool = True, scales: dict[str, float] | None = None
) -> Divergence | None:
    """Where `small`, a pass at other sizes, first computes otherwise than the `full` net; None where it never does.

    ended   it came to its end, rather than to an error
    scales  takes parameter -> how many times larger it must be for `small` to compute the same (`scaling`)
    """
    flow = Flow(full)
    scales = {} if scales is None else scales
    together = zip_longest(full.calls, small.calls) if ended else zip(full.calls, small.calls, strict=False)
    for position, (one, other) in enumerate(together):
        if one is None or other is None or one.name != other.name:
            return Divergence(position=position, reason="its forward branches on their number", steps=True)
        if len(refs_in(one.made)) != len(refs_in(other.made)):
            return Divergence(position=position, reason="its forward takes them apart into other parts", steps=True)
        if not _alike(one, other, full, small) and not _made_up_for(one, other, flow, scales):
            return Divergence(position=position, reason="its forward computes with their number", steps=False)
    if ended and full.outputs != small.outputs:
        return Divergence(position=len(full.calls) - 1, reason="its forward branches on their number", steps=True)
    return None


def _made_up_for(one: Recorded, other: Recorded, flow: Flow, scales: dict[str, float]) -> bool:
    """Whether the calls differ in a number alone that parameters can make up for; notes these in `scales`."""
    ratio = factor(one, other)
    names = None if ratio is None else flow.weights(one)
    if ratio is None or names is None or any(name in scales for name in names):
        return False
    scales.update(dict.fromkeys(names, ratio))
    return True


def misshapen(full: Trace, small: Trace, views: Mapping[str, tuple[bool, ...]]) -> int | None:
    """The first view that changes in dimensions along which no channels lie: one that puts other elements together.

    views  of the full pass, by their labels -> along which dimensions channels lie
    """
    for position, (one, other) in enumerate(zip(full.calls, small.calls, strict=False)):
        dims = views.get(f"{full.mode} {one.name}")
        if dims is not None and one.name == other.name:
            before, after = one.result.shape, other.result.shape
            if len(after) != len(dims) or any(before[d] != after[d] for d, lies in enumerate(dims) if not lies):
                return position
    return None


def _alike(one: Recorded, other: Recorded, full: Trace, small: Trace) -> bool:
    if one.op is not other.op:
        return False
    kind = one.op._overloadpacket.__name__.rstrip("_")
    for name, value in one.arguments.items():
        theirs = other.arguments[name]
        if name in SIZES or name == "generator" or repr(value) == repr(theirs):
            continue
        dims = None if name == "pad" else _dims(one.arguments)
        if not (name == "pad" or kind in MOVING) or not _resized(one, other, full, small, dims):
            return False
    numbers = [ref.number for ref in refs_in(list(one.arguments.values()))]
    return all(full.constants.get(number) == small.constants.get(number) for number in numbers)


def _dims(arguments: dict[str, Any]) -> list[int] | None:
    dims = arguments.get("dim", arguments.get("dims"))
    return [dims] if isinstance(dims, int) else dims or None


def _resized(one: Recorded, other: Recorded, full: Trace, small: Trace, dims: list[int] | None) -> bool:
    """Whether what is moved has other sizes along all `dims`, or it or the result anywhere."""
    source = one.arguments.get("self", one.arguments.get("input"))
    if not isinstance(source, Ref):
        return False
    before, after = full.shape(source), small.shape(source)
    if dims is None:
        return before != after or one.result.shape != other.result.shape
    return all(before[dim] != after[dim] for dim in dims)
