"""Which channels stay: the best-scored of each kind, as many as the fit left, written down as a plan."""

from __future__ import annotations

from math import prod

import numpy as np

from solution.compress.coupling.analysis import Analysis
from solution.compress.coupling.components import Coupling, Side, made_alike
from solution.compress.coupling.costs import layer_macs
from solution.compress.coupling.fitting import SPARE, Fit
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.sizes import classes_of
from solution.contracts import InputError


def choose(full: Coupling, skeleton: Coupling, replaces: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(components of the skeleton,) the original component in the place of each: the best-scored of its class.

    They keep their order. A spare place gets the best unused channel that the same layers make; nothing will read it.
    replaces: the class that each comes from, or SPARE; score: (components of the full model,), higher stays.
    """
    of = classes_of(full).of
    chosen = np.empty(len(replaces), dtype=np.int64)
    for number in np.unique(replaces[replaces != SPARE]).tolist():
        places = np.flatnonzero(replaces == number)
        members = np.flatnonzero(of == number)
        best = members[np.argsort(-score[members], kind="stable")[: len(places)]]
        chosen[places] = np.sort(best)
    _lend(full, skeleton, replaces == SPARE, score, chosen)
    return chosen


def _lend(full: Coupling, skeleton: Coupling, spare: np.ndarray, score: np.ndarray, chosen: np.ndarray) -> None:
    """Choose for the spare places."""
    if spare.any():
        donors, places = made_alike(full), made_alike(skeleton)
        for place in np.flatnonzero(spare).tolist():
            members = np.flatnonzero(donors == places[place])
            unused = members[~np.isin(members, chosen[~spare])]
            pool = unused if len(unused) else members
            if not len(pool):
                raise InputError("the wiring of the cut net has channels that the full net has not")
            chosen[place] = pool[np.argmax(score[pool])]


def selections(
    full: Coupling, skeleton: Coupling, chosen: np.ndarray, spare: np.ndarray
) -> dict[tuple[str, int], np.ndarray]:
    """(Tensor, axis) -> kept indices in the order in which channels arrive there, for every axis that changes.

    Where a spare channel (components of the skeleton,) is read the index is -1.
    """
    found, known = {}, {}  # many axes carry the same channels
    for side in full.sides:
        small = skeleton.side(*side.key)
        if small is None or (small.role == "output" and spare[small.component].any()):
            raise InputError(f"channels no longer lie along axis {side.axis} of {side.tensor} after the cut")
        parts = (side.component.tobytes(), small.component.tobytes(), side.groups, small.groups, side.role == "in")
        if parts not in known:
            known[parts] = _kept_positions(side, small, chosen, spare)
        kept = known[parts]
        if not np.array_equal(kept, np.arange(len(side.component))):
            found[side.key] = kept
            if side.role == "output":
                raise InputError(f"the cut would change the order of {side.tensor}")
    return found


def _kept_positions(side: Side, small: Side, chosen: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Positions of `side`, in the order of `small`: the nth of a component in a group is its nth there."""
    wanted = chosen[small.component]
    kept = _matched((side.component, side.group), (wanted, small.group))
    lent = spare[small.component]
    if not lent.any():
        return kept
    if side.role == "in":
        return np.where(lent, -1, kept)
    anywhere = np.zeros_like(side.group), np.zeros_like(small.group)
    loose = _matched((side.component, anywhere[0]), (np.where(lent, wanted, -1), anywhere[1]))
    return np.where(lent, loose, kept)


Kinds = tuple[np.ndarray, np.ndarray]
"""(positions,) component, and (positions,) group."""


def _matched(there: Kinds, here: Kinds) -> np.ndarray:
    """For each position here the one there that is the nth of the same component and group too, or -1."""
    component, group = np.concatenate([np.stack(there), np.stack(here)], 1)
    number = (component + 1) * (group.max() + 1) + group
    theirs, ours = number[: len(there[0])], number[len(there[0]) :]
    rank_there, rank_here = _rank(theirs), _rank(ours)
    most = max(len(theirs), len(ours)) + 1
    keys, wanted = theirs * most + rank_there, ours * most + rank_here
    order = np.argsort(keys)
    place = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[place] == wanted, place, -1)


def _rank(number: np.ndarray) -> np.ndarray:
    """(N,) how many equal ones come before each."""
    order = np.argsort(number, kind="stable")
    ordered = number[order]
    start = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    rank = np.empty(len(number), dtype=np.int64)
    rank[order] = np.arange(len(number)) - np.repeat(start, np.diff(start, append=len(number)))
    return rank


def written_plan(full: Analysis, fitted: Fit, score: np.ndarray) -> ChannelPlan:
    """The plan that keeps the channels of highest `score` (components,) at the sizes of `fitted`."""
    skeleton = fitted.skeleton.coupling
    chosen = choose(full.coupling, skeleton, fitted.replaces, score)
    kept = selections(full.coupling, skeleton, chosen, fitted.replaces == SPARE)
    shapes = _shapes(full)
    numbers: dict[tuple[int, ...], int] = {}
    tensors: dict[str, tuple[tuple[int, int, int], ...]] = {}
    for (name, axis), positions in sorted(kept.items()):
        if name in shapes:
            number = numbers.setdefault(tuple(positions.tolist()), len(numbers))
            side = full.coupling.side(name, axis)
            groups = side.groups if side else 1
            tensors[name] = (*tensors.get(name, ()), (axis, groups, number))
    return ChannelPlan(
        selections=tuple(numbers),
        tensors=tensors,
        shapes={name: shapes[name] for name in tensors},
        attributes=fitted.skeleton.attributes,
        layers=_layers(full, fitted, kept),
        saves={"macs": _macs(full, fitted), "params": (_params(full), _params(fitted.skeleton))},
        kept=_kept(full, fitted, kept),
        scales=fitted.skeleton.scales,
        approximated=full.coupling.approximated,
    )


def _shapes(analysis: Analysis) -> dict[str, tuple[int, ...]]:
    trace = analysis.traces[0]
    return dict(zip(trace.tensors, trace.shapes, strict=False))


def _params(analysis: Analysis) -> int:
    return sum(prod(shape) for name, shape in _shapes(analysis).items() if name in analysis.traces[0].parameters)


def _macs(full: Analysis, fitted: Fit) -> tuple[int, int]:
    before, after = (sum(layer_macs(analysis.traces[0]).values()) for analysis in (full, fitted.skeleton))
    return before, after


def _makers(full: Analysis) -> list[Side]:
    return [side for side in full.coupling.sides if side.role == "out"]


def _layers(
    full: Analysis, fitted: Fit, kept: dict[tuple[str, int], np.ndarray]
) -> tuple[tuple[str, int, int, int, int], ...]:
    before, after = layer_macs(full.traces[0]), layer_macs(fitted.skeleton.traces[0])
    return tuple(
        (
            _layer(side.tensor),
            len(side.component),
            len(kept[side.key]),
            before.get(side.tensor, 0),
            after.get(side.tensor, 0),
        )
        for side in _makers(full)
        if side.key in kept
    )


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _kept(full: Analysis, fitted: Fit, kept: dict[tuple[str, int], np.ndarray]) -> dict[str, str]:
    """Why each layer that lost no channel was kept whole."""
    coupling, reasons = full.coupling, {}
    for side in _makers(full):
        if side.key in kept:
            continue
        component = int(side.component[0])
        frozen = fitted.frozen.get(int(coupling.atom[component]))
        mixed = coupling.mixing.get(component)
        why = f"{mixed} ties its channels together" if mixed else "it has no channel to spare"
        reasons[_layer(side.tensor)] = coupling.reason.get(component) or frozen or why
    return {**reasons, **dict.fromkeys(map(_layer, full.unreached), "the forward never reads it")}
