"""Weights that a forward computes from parameters on every call: standardized, scaled, normalized, joined, of low rank.

The parameter of the weight's own shape stands for the weight, and gains of one number per row go along with its rows.
Statistics over a row are those of the inputs that stay, as with layer norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from solution.compress.coupling.recorder import Recorded, Ref
from solution.compress.coupling.tracing import Trace, refs_in


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What a computed weight is made of.

    source  the parameter that stands for it
    along   (number, axis, axis of the weight) of other tensors whose axis goes along with one of the weight: gains of
            one number per row, masks, factors of low rank
    """

    source: int
    along: tuple[tuple[int, int, int], ...]


TURNS = ("t_", "transpose_", "numpy_T", "mT")
"""Calls that swap the axes of a matrix."""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Along which axes of a parameter rows and columns lie of a weight that is computed from several parameters."""

    rows: int
    columns: int
    transposed: bool


def derived_weights(trace: Trace) -> tuple[dict[int, Derived], set[int], dict[int, Kernels]]:
    """Number of a computed weight -> the numbers of what it is computed from; and of all tensors between the two.

    Where one parameter cannot stand for it: number of a parameter -> where rows and columns of kernels lie in it.
    """
    maker = {ref.number: call for call in trace.calls for ref in refs_in(call.made)}
    found: dict[int, Derived] = {}
    between: set[int] = set()
    kernels: dict[int, Kernels] = {}
    whole = {
        ref.number
        for call in trace.calls
        for ref in refs_in(call.arguments.get("weight"))
        if call.name.startswith(("conv", "linear", "embedding")) and ref.number < len(trace.tensors)
    }
    for call in trace.calls:
        flat = call.arguments.get("self") if call.name.startswith(("matmul", "mm_")) else None
        if isinstance(flat, Ref) and (filters := _flattened(flat, maker, trace)) is not None and filters not in whole:
            kernels[filters] = Kernels(rows=0, columns=1, transposed=False)
        weight = _weight_of(call, maker)
        if isinstance(weight, Ref) and weight.number in maker and weight.number not in found:
            past = _past(weight.number, maker)
            sources = sorted(past - maker.keys() - trace.constants.keys())
            derived = None if past & {one.number for one in trace.inputs} else _derived(weight.number, sources, trace)
            if derived is not None:
                found[weight.number] = derived
                between |= past & maker.keys()
            elif call.arguments.get("weight") is not None:
                held = [number for number in sources if number < len(trace.tensors) and number not in whole]
                axes = {number: _rows_of(trace.shapes[number], trace.shapes[weight.number]) for number in held}
                kernels |= {
                    number: Kernels(rows=axis, columns=axis + 1, transposed="transpose" in call.name)
                    for number, axis in axes.items()
                    if axis is not None
                }
    return found, between, kernels


def _weight_of(call: Recorded, maker: dict[int, Recorded]) -> Any:
    """What a layer multiplies with, before it is turned."""
    if call.name.startswith(("conv", "linear")):
        return call.arguments.get("weight")
    if not call.name.startswith(("matmul", "mm_")):
        return None
    factor = call.arguments.get("other", call.arguments.get("mat2"))
    while isinstance(factor, Ref) and factor.number in maker and maker[factor.number].name.startswith(TURNS):
        factor = maker[factor.number].arguments["self"]
    return factor


def _flattened(matrix: Ref, maker: dict[int, Recorded], trace: Trace) -> int | None:
    """The parameter of which `matrix` is a view with a row for each filter; None for any other."""
    view = maker.get(matrix.number)
    source = (
        view.arguments.get("self") if view is not None and view.name.startswith(("view", "reshape", "flat")) else None
    )
    if not isinstance(source, Ref) or trace.source(source) not in trace.parameters:
        return None
    rows, *each = trace.shape(source)
    return source.number if len(each) > 1 and trace.shape(matrix) == (rows, prod(each)) else None


def _rows_of(own: tuple[int, ...], shape: tuple[int, ...]) -> int | None:
    """The axis of a parameter along which the rows of kernels of `shape` lie, their columns along the next; None for
    vectors, and for what holds kernels flat.

    It holds kernels (..., outputs, inputs, height, width), a part of one, larger ones, or a factor of low rank.
    """
    if len(own) < 2 or max(own) == prod(own) or prod(shape) in (own[-1], prod(own[1:]) if len(own) == 2 else 0):
        return None
    whole = [axis for axis in range(len(own) - 1) if prod(own[axis + 1 :]) == prod(shape[1:]) and own[axis] > 1]
    if whole and shape[0] % own[whole[0]] == 0 and (whole[0] == 0 or len(shape) > 2):
        return whole[0]
    return 0 if len(own) == len(shape) or len(own) == 2 else None


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
    if not same and len(shape) > 2:  # a kernel that is summed, say, over height and width
        same = [n for n in sources if len(trace.shapes[n]) == len(shape) and trace.shapes[n][:2] == shape[:2]]
    learned = [number for number in same if trace.tensors[number] in trace.parameters]
    if len(learned) != 1 or len(shape) < 2:
        return None
    along = [(number, axis, axis) for number in same if number not in learned for axis in (0, 1)]
    for number in sources:
        own = trace.shapes[number]
        if number in same or prod(own) == 1:
            continue
        if len(own) == len(shape) > 2 and own[:2] == shape[:2]:  # a smaller kernel beside
            along += [(number, 0, 0), (number, 1, 1)]
            continue
        rows, columns = own[0] == shape[0], len(own) == 2 and own[1] == shape[1]
        if rows == columns or not (own[0] == prod(own) or len(own) == len(shape) == 2):
            return None
        along.append((number, 0, 0) if rows else (number, 1, 1))
    return Derived(source=learned[0], along=tuple(along))
