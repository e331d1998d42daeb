"""How many bytes live at once while operations run. PyTorch is not imported: a child that reads one file has no use for
it (`solution.formats.child`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

ALIGNMENT = 16
"""Bytes: planners of small memories begin every tensor at a multiple."""


Step = tuple[Iterable[int], Iterable[int]]
"""Numbers of what an operation reads, and of what it makes."""


def live_bytes(steps: Sequence[Step], sizes: Mapping[int, int], given: Iterable[int], kept: Iterable[int]) -> list[int]:
    """For each step the bytes of what lives while it runs: its inputs and outputs, and what a later one reads.

    sizes  {number: bytes}; what has none is a constant
    given  numbers that live from the start; kept: that live to the end
    """
    last = {number: place for place, (inputs, _) in enumerate(steps) for number in inputs}
    last |= dict.fromkeys(kept, len(steps))
    live = {number for number in given if number in sizes}
    found = []
    for place, (_, outputs) in enumerate(steps):
        live |= {number for number in outputs if number in sizes}
        found.append(sum(-(-sizes[number] // ALIGNMENT) * ALIGNMENT for number in live))
        live = {number for number in live if last.get(number, -1) > place}
    return found


def placed_bytes(steps: Sequence[Step], sizes: Mapping[int, int], given: Iterable[int], kept: Iterable[int]) -> int:
    """The room that TensorFlow Lite Micro's planner takes; arguments as for `live_bytes`.

    The largest first, of equal ones the last, each as low as nothing lies that lives at the same time. What lives at
    once may need less.
    """
    first = dict.fromkeys(given, 0)
    last = dict.fromkeys(first, 0)
    for place, (inputs, outputs) in enumerate(steps):
        for number in outputs:
            first.setdefault(number, place)
        last |= dict.fromkeys((*inputs, *outputs), place)
    last |= dict.fromkeys(kept, len(steps))
    found: list[tuple[int, int, int]] = []  # (begin, end, number), sorted
    for number in sorted((number for number in first if number in sizes), key=lambda number: (-sizes[number], -number)):
        wanted, begin = -(-sizes[number] // ALIGNMENT) * ALIGNMENT, 0
        for low, high, other in found:
            if first[other] > last[number] or last[other] < first[number]:
                continue
            if low - begin >= wanted:
                break
            begin = max(begin, high)
        found = sorted([*found, (begin, begin + wanted, number)])
    return max((high for _, high, _ in found), default=0)
