"""Convolution weights that are computed from parameters on every call: standardized, scaled, normalized weights.

The parameter of the weight's own shape stands for the weight, and gains of one number per row go along with its rows.
Statistics over a row are those of the inputs that stay, as with layer norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from solution.compress.coupling.recorder import Recorded, Ref
from solution.compress.coupling.tracing import Trace, refs_in


@dataclass(frozen=True, kw_only=True)
class Derived:
    """source: the parameter that stands for a computed weight; gains: parameters with a number for each of its rows."""

    source: int
    gains: tuple[int, ...]


def derived_weights(trace: Trace) -> tuple[dict[int, Derived], set[int]]:
    """Number of a computed weight -> the numbers of what it is computed from; and of all tensors between the two."""
    maker = {ref.number: call for call in trace.calls for ref in refs_in(call.made)}
    found: dict[int, Derived] = {}
    between: set[int] = set()
    for call in trace.calls:
        weight = call.arguments.get("weight") if call.name.startswith("conv") else None
        if isinstance(weight, Ref) and weight.number in maker and weight.number not in found:
            past = _past(weight.number, maker)
            sources = sorted(past - maker.keys() - trace.constants)
            derived = None if trace.image.number in past else _derived(weight.number, sources, trace)
            if derived is not None:
                found[weight.number] = derived
                between |= past & maker.keys()
    return found, between


def _past(number: int, maker: dict[int, Recorded]) -> set[int]:
    past, waiting = set(), [number]
    while waiting:
        current = waiting.pop()
        if current not in past:
            past.add(current)
            waiting += [ref.number for ref in refs_in(maker[current].arguments)] if current in maker else []
    return past


def _derived(weight: int, sources: list[int], trace: Trace) -> Derived | None:
    shape = trace.shapes[weight]
    same = [number for number in sources if trace.shapes[number] == shape]
    gains = [number for number in sources if number not in same and prod(trace.shapes[number]) > 1]
    fits = all(trace.shapes[number][0] == prod(trace.shapes[number]) == shape[0] for number in gains)
    return Derived(source=same[0], gains=tuple(gains)) if len(same) == 1 and fits else None
