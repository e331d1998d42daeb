"""From wanted numbers to numbers that the real forward accepts.

The model is cut to the wanted sizes without weights (a skeleton), its forward runs on fake tensors, and ids are sent
through it again. Numbers fit when every kind of channel that the skeleton has was there before, at least as often.
A few channels that were not there are allowed: they get weights of zero where they are read (`SPARE`). What does not
fit otherwise is tried again with equal shares in coarser steps (`ladders`), once with runs of one length wherever the
forward takes channels apart, and then kept whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from solution.compress.coupling.analysis import (
    Analysis,
    Sizes,
    TraceRequest,
    analyze,
    atoms_of_tensors,
    shapes_at,
    skeleton_sizes,
)
from solution.compress.coupling.attributes import Stored, all_shapes
from solution.compress.coupling.components import NO_COMPONENT, Coupling, made_alike
from solution.compress.coupling.operations import divergence, misshapen
from solution.compress.coupling.sizes import Classes, classes_of, count_channels, first_ones, ranks
from solution.compress.coupling.stored import (
    Failed,
    atoms_along,
    in_proportion,
    is_authored,
    learn,
    linked_atoms,
    merged,
    same_places,
    together,
)
from solution.compress.coupling.tracing import Trace, TraceError, refs_in
from solution.contracts import InputError

STEPS = (1, 2, 8)
MOST_ATTEMPTS = 60
ONE_BY_ONE = 12
"""After so many attempts, what resists in one block is taken to resist in all blocks alike: deep nets repeat."""
MOST_SPARE = 0.25
"""Channels of an atom that come from no original one, as a fraction of those that stay of it."""
SPARE = -1


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Sizes that work.

    skeleton  the analysis of the model at these sizes
    replaces  (components of the skeleton,) the class of the full model's components that each of them comes from,
              or SPARE
    frozen    atom -> why it was kept whole
    """

    skeleton: Analysis
    replaces: np.ndarray
    frozen: dict[int, str] = field(default_factory=dict)

    def numbers(self, classes: Classes) -> dict[int, int]:
        """Atom of the full model -> how many of its components stay."""
        stay = classes.atom[self.replaces[self.replaces != SPARE]]
        return {atom: int((stay == atom).sum()) for atom in classes.atom_sizes() if atom != NO_COMPONENT}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Sizes that do not work.

    suspects        sets of atoms that may be in the way, the likeliest first
    reason          what went wrong
    others_may_fit  whether other sizes may do better
    reached         how far the forward came: pass and call, the farther the larger
    ran             whether it is a forward that failed, where other proportions may help
    """

    suspects: list[set[int]]
    reason: str
    others_may_fit: bool = True
    reached: tuple[bool, float] = (True, np.inf)
    ran: bool = False


class DivergenceError(TraceError):
    """The forward runs, but computes something else; `steps` as in `Divergence`."""

    steps = True


class MisfitError(TraceError):
    """The forward runs, but channels meet others than in the full net.

    suspects  sets of atoms that may be in the way, the likeliest first
    """

    suspects: list[set[int]]


def fit(
    request: TraceRequest,
    full: Analysis,
    targets: Mapping[int, int],
    multiple: Mapping[int, int],
    frozen: dict[int, str] | None = None,
) -> Fit:
    """Sizes as near to `wanted` (atom -> components that stay) as the forward accepts.

    multiple  atom -> its number is a multiple of this
    frozen    atoms known to resist, with reasons; more are added to it
    """
    classes = classes_of(full.coupling)
    sizes, ladder = classes.atom_sizes(), ladders(full.coupling, classes)
    stay = {atom: int(classes.size[(classes.atom == atom) & classes.kept].sum()) for atom in sizes}
    frozen = {} if frozen is None else frozen
    linked = linked_atoms(request.model, full.coupling)
    first = in_proportion(targets, sizes, stay, linked)
    targets, step, runs_tried, forgotten = first, dict.fromkeys(targets, 0), False, -1
    tried: list[set[int]] = []  # sets of which it helped, and was tried, that they shrink in one proportion
    asked: list[list[set[int]]] = []

    def attempted(targets: Mapping[int, int], alike_too: bool, even: bool = False) -> Fit | Failure:
        free = {atom: number for atom, number in targets.items() if atom not in frozen}
        fine = {atom: ladder[atom][0 if even else step[atom]] for atom in free}
        steps = {atom: int(np.lcm(multiple.get(atom, 1), fine[atom])) for atom in free}
        counts = count_channels(full.coupling, classes, free, steps, even=even)
        return _attempt(request, full, classes, counts, alike_too)

    def further(whole: set[int], failure: Failure) -> bool:
        found = attempted({atom: number for atom, number in targets.items() if atom not in whole}, False)
        return isinstance(found, Fit) or found.reached > failure.reached

    for attempt in range(MOST_ATTEMPTS):
        before = dict(request.learned)
        outcome = attempted(targets, attempt >= ONE_BY_ONE)
        if isinstance(outcome, Failure) and outcome.ran:
            sets = together(request.model, full.coupling, outcome.suspects[0] - frozen.keys())
            other, learned = (
                in_proportion(targets, sizes, stay, merged([*linked, *tried, *sets])),
                dict(request.learned),
            )
            if sets not in asked and other != targets:
                asked.append(sets)
                _replace(request.learned, before)
                found = attempted(other, attempt >= ONE_BY_ONE)
                if isinstance(found, Fit) or found.reached > outcome.reached:
                    tried, targets, outcome = merged([*tried, *sets]), other, found
                else:
                    _replace(request.learned, learned)
        if isinstance(outcome, Fit):
            return replace(outcome, frozen=frozen)
        free = {atom: number for atom, number in targets.items() if atom not in frozen}
        culprits = next((some & set(free) for some in outcome.suspects if some & set(free)), set(free))
        if not outcome.others_may_fit and not further(culprits if outcome.suspects[0] & set(free) else set(), outcome):
            culprits = _needed(set(), sorted(free), functools.partial(further, failure=outcome))
        if not free:
            break
        if not culprits:  # numbers that were found meanwhile bring it further
            continue
        if culprits == set(free) and request.learned and forgotten != len(frozen):
            forgotten = len(frozen)  # numbers that were found while what stays whole by now was to shrink
            request.learned.clear()
            continue
        culprits = set(free) & culprits.union(*(atoms for atoms in linked if atoms & culprits))
        share = sum(targets[atom] for atom in culprits) / sum(sizes[atom] for atom in culprits)
        stuck = set()
        for atom in culprits:
            step[atom], targets[atom] = (step[atom] + 1, max(1, round(share * sizes[atom])))
            if not outcome.others_may_fit or step[atom] == len(ladder[atom]):
                stuck.add(atom)
        if not runs_tried and any(stuck & atoms_along(full.coupling, run) for run in full.coupling.runs):
            runs_tried = True
            even = attempted({atom: first[atom] for atom in free}, False, even=True)
            if isinstance(even, Fit):
                return replace(even, frozen=frozen)
        frozen.update(dict.fromkeys(stuck, outcome.reason))
        tried = [atoms for atoms in tried if not atoms & stuck]
        targets = in_proportion(targets, sizes, stay, merged([*linked, *tried]))
    raise InputError(f"no sizes were found that the forward accepts, in {MOST_ATTEMPTS} attempts")


def _needed(whole: set[int], some: list[int], enough: Callable[[set[int]], bool]) -> set[int]:
    """The few of `some` that must stay whole besides `whole`, for that to be enough (Junker, "QuickXplain", 2004)."""
    if not some or enough(whole):
        return set()
    if len(some) == 1:
        return set(some)
    first, second = some[: len(some) // 2], some[len(some) // 2 :]
    found = _needed(whole.union(second), first, enough)
    return found | _needed(whole | found, second, enough)


def _replace(learned: Stored, other: Stored) -> None:
    learned.clear()
    learned.update(other)


def ladders(coupling: Coupling, classes: Classes) -> dict[int, tuple[int, ...]]:
    """Atom -> the steps that its number is tried in, finest first.

    Behind a channel shuffle of g groups, multiples of g in every group always fit: g * g in all.
    """
    groups = dict.fromkeys(classes.atom_sizes(), 1)
    for side in coupling.sides:
        for atom in np.unique(coupling.atom[side.component]).tolist():
            groups[atom] = max(groups[atom], side.groups)
    steps = {}
    for atom, size in classes.atom_sizes().items():
        quarter = (size // 4,) if size % 4 == 0 else ()  # numbers that the forward divides by one of its own
        found = (1, 2, groups[atom] ** 2) if groups[atom] > 1 else sorted({*STEPS, *quarter})
        steps[atom] = tuple(step for step in found if 0 < step < max(2, size))
    return steps


def _attempt(
    request: TraceRequest, full: Analysis, classes: Classes, counts: np.ndarray, alike_too: bool
) -> Fit | Failure:
    """A fit, or what is in its way."""
    coupling, stays = full.coupling, skeleton_sizes(full.coupling, first_ones(classes, counts))
    try:
        return _with_stored_numbers(request, full, classes, stays)
    except MisfitError as error:
        return Failure(suspects=error.suspects, reason=str(error))
    except TraceError as error:
        passing, reached = _passing(full, error.mode, error.position), (error.mode != "eval", float(error.position))
        if isinstance(error, DivergenceError):
            return Failure(suspects=[passing], reason=str(error), others_may_fit=error.steps, reached=reached, ran=True)
        where = error.where or type(request.model).__name__
        passing |= _same_elsewhere(request.model, coupling, passing) if alike_too else set()
        suspects = [passing, *_near(request.model, coupling, error, alike_too)]
        reason = f"the forward of {where} does not follow a cut of it"
        return Failure(suspects=suspects, reason=reason, reached=reached, ran=True)


def _with_stored_numbers(request: TraceRequest, full: Analysis, classes: Classes, stays: Sizes) -> Fit:
    """A fit of these sizes, numbers that modules store set to what lets the forward run and channels meet as before."""
    before = all_shapes(request.model)
    after = {**before, **shapes_at(request.model, full.coupling, stays)}
    while True:
        try:
            return _fitting(request, full, classes, stays)
        except TraceError as error:
            trace, ran = next(one for one in full.traces if one.mode == error.mode), isinstance(error, MisfitError)
            failed = Failed(trace=trace, error=error, ran=ran, before=before, after=after)
            if not learn(request, failed, lambda: _fitting(request, full, classes, stays)):
                raise


def _fitting(request: TraceRequest, full: Analysis, classes: Classes, stays: Sizes) -> Fit:
    skeleton = _analyzed(request, full, stays)
    replaces = _replaced(full.coupling, classes, skeleton.coupling)
    misfits = _misfits(full.coupling, skeleton.coupling, replaces == SPARE)
    if not misfits.any():
        return Fit(skeleton=skeleton, replaces=replaces)
    label, first = _first_of(skeleton.coupling, misfits)
    mode, _, name = label.partition(" ")
    calls = next((one.calls for one in full.traces if one.mode == mode), ())
    position = next((place for place, call in enumerate(calls) if call.name == name), 0)
    where = calls[position].where if calls else ""
    error = MisfitError("its channels would meet others than before", where, "", mode or "eval", position)
    error.suspects = [_makers(full.coupling, skeleton.coupling, some) for some in (first, misfits)]
    raise error


def _analyzed(request: TraceRequest, full: Analysis, stays: Sizes) -> Analysis:
    """The skeleton. `TraceError` also for a view that puts other elements together than in the full net, and for a
    forward that computes something else.
    """
    try:
        skeleton = analyze(request, stays, full)
    except TraceError as error:
        one = next(one for one in full.traces if one.mode == error.mode)
        if error.begun is not None and (earlier := _unlike(full, one, error.begun, {}, ended=False)) is not None:
            raise earlier from error
        raise
    scales: dict[str, float] = {}
    for one, other in zip(full.traces, skeleton.traces, strict=True):
        found: dict[str, float] = {}
        if (unlike := _unlike(full, one, other, found)) is not None:
            raise unlike
        scales.update(found)
    return replace(skeleton, scales=scales)


def _unlike(
    full: Analysis, one: Trace, other: Trace, scales: dict[str, float], ended: bool = True
) -> TraceError | None:
    """What the full pass and that of a skeleton first differ in, but for what `scales` make up for."""
    found, place = divergence(one, other, ended, scales), misshapen(one, other, full.coupling.views)
    if place is not None and (found is None or place <= found.position):
        where = one.calls[place].where
        return TraceError(f"a view in {where} mixes channels with positions", where, "", one.mode, place)
    if found is None:
        return None
    error = DivergenceError(found.reason, one.calls[found.position].where, "", one.mode, found.position)
    error.steps = found.steps
    return error


def _is_input(names: set[str | None], name: str, role: str) -> bool:
    return name in names and role == "in"


def _passing(full: Analysis, mode: str, position: int) -> set[int]:
    """Atoms whose channels go through a call of a pass, or are the weight of one; of the next call that has such."""
    for trace in full.traces:
        for call in trace.calls[position:] if trace.mode == mode else ():
            read = {trace.source(ref) for ref in refs_in(list(call.arguments.values()))} - {None}
            atoms = atoms_of_tensors(full.coupling, functools.partial(_is_input, read))
            passing = full.coupling.passing.get(f"{mode} {call.name}", ())
            atoms |= set(full.coupling.atom[np.asarray(passing, dtype=np.int64)].tolist()) - {NO_COMPONENT}
            if atoms:
                return atoms
    return set()


def _replaced(full: Coupling, classes: Classes, skeleton: Coupling) -> np.ndarray:
    """(components of the skeleton,) the class that each comes from; SPARE beyond what the class had."""
    small = classes_of(skeleton)
    number = {key: n for n, key in enumerate(_keys(full, classes))}
    comes_from = np.array([number.get(key, SPARE) for key in _keys(skeleton, small)], dtype=np.int64)
    rank = ranks(small)
    replaces = comes_from[small.of]
    return np.where((replaces != SPARE) & (rank < classes.size[replaces]), replaces, SPARE)


def _misfits(full: Coupling, skeleton: Coupling, spare: np.ndarray) -> np.ndarray:
    """(components of the skeleton,) the spare channels of atoms that have too many, and those that cannot be spare.

    A spare channel borrows weights from another of the same layers, and may change no statistics and no outputs.
    """
    misfit = spare & ~np.isin(made_alike(skeleton), made_alike(full))
    for side in skeleton.sides:
        if side.role in ("joint", "output"):
            misfit[side.component] |= spare[side.component]
    for atom in np.unique(skeleton.atom[spare]):
        members = skeleton.atom == atom
        if spare[members].mean() > MOST_SPARE:
            misfit |= members & spare
    return misfit


def _first_of(skeleton: Coupling, misfits: np.ndarray) -> tuple[str, np.ndarray]:
    """The first call that `misfits` go through, and those that do: what comes after may follow from them."""
    for call, passing in skeleton.passing.items():
        if misfits[passing].any():
            first = np.zeros_like(misfits)
            first[passing] = misfits[passing]
            return call, first
    return "", misfits


def _keys(coupling: Coupling, classes: Classes) -> list[tuple[int, bool]]:
    return list(zip(coupling.signature[classes.sample].tolist(), classes.kept.tolist(), strict=True))


def _near(model: nn.Module, coupling: Coupling, error: TraceError, alike_too: bool) -> list[set[int]]:
    """Suspects, the likeliest first: atoms that touch what ran last, then the failing module, then its parents.

    alike_too  and what stands at the same place in other blocks
    """
    where, suspects = error.where, []
    if error.after.startswith(f"{where}." if where else ""):
        suspects.append(_touching(coupling, same_places(model, error.after) if alike_too else [error.after]))
    while where:
        authored = is_authored(model, where)
        suspects.append(_touching(coupling, same_places(model, where) if authored or alike_too else [where]))
        where = where.rpartition(".")[0]
    return suspects


def _same_elsewhere(model: nn.Module, coupling: Coupling, atoms: set[int]) -> set[int]:
    """Atoms that are made at the same places of other blocks as `atoms` are."""
    makers = [side.tensor for side in coupling.sides if side.role == "out" and atoms & atoms_along(coupling, side)]
    places = {name.rpartition(".")[0] for name in makers}
    paths = {other for path in places if path for other in same_places(model, path)}
    return atoms_of_tensors(coupling, lambda name, role: role == "out" and name.rpartition(".")[0] in paths)


def _touching(coupling: Coupling, paths: list[str]) -> set[int]:
    """Atoms that touch the modules at `paths`."""
    return atoms_of_tensors(coupling, lambda name, _: any(name.startswith(f"{path}.") for path in paths))


def _makers(coupling: Coupling, skeleton: Coupling, unfit: np.ndarray) -> set[int]:
    """Atoms of the full model whose layers make the skeleton's `unfit` components, or that lie beside these."""
    names = {(side.tensor, side.role) for side in skeleton.sides if unfit[side.component].any()}
    made = atoms_of_tensors(coupling, lambda name, role: (name, role) in names and role == "out")
    return made or atoms_of_tensors(coupling, lambda name, role: (name, role) in names)
