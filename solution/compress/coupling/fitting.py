"""From wanted numbers to numbers that the real forward accepts.

The model is cut to the wanted sizes without weights (a skeleton), its forward runs on fake tensors, and ids are sent
through it again. Numbers fit when every kind of channel that the skeleton has was there before, at least as often.
A few channels that were not there are allowed: they get weights of zero where they are read (`SPARE`). What does not
fit otherwise is tried again with equal shares in coarser steps (`ladders`), and then kept whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from solution.compress.coupling.analysis import Analysis, Subject, analyse, atoms_of_tensors
from solution.compress.coupling.components import Coupling, made_alike
from solution.compress.coupling.sizes import Classes, classes_of, count_channels
from solution.compress.coupling.skeleton import skeleton_sizes
from solution.compress.coupling.tracing import TraceError
from solution.contracts import InputError

STEPS = (1, 2, 8)
MOST_ATTEMPTS = 60
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


def fit(
    subject: Subject,
    full: Analysis,
    wanted: Mapping[int, int],
    multiple: Mapping[int, int],
    frozen: dict[int, str] | None = None,
) -> Fit:
    """Sizes as near to `wanted` (atom -> components that stay) as the forward accepts.

    multiple  atom -> its number is a multiple of this
    frozen    atoms known to resist, with reasons; more are added to it
    """
    classes = classes_of(full.coupling)
    sizes, ladder = classes.atom_sizes(), ladders(full.coupling, classes)
    frozen = {} if frozen is None else frozen
    wanted, step = dict(wanted), dict.fromkeys(wanted, 0)
    for _ in range(MOST_ATTEMPTS):
        free = {atom: number for atom, number in wanted.items() if atom not in frozen}
        steps = {atom: int(np.lcm(multiple.get(atom, 1), ladder[atom][step[atom]])) for atom in free}
        counts = count_channels(full.coupling, classes, free, steps)
        outcome = _attempt(subject, full, classes, counts)
        if isinstance(outcome, Fit):
            return Fit(skeleton=outcome.skeleton, replaces=outcome.replaces, frozen=frozen)
        suspects, reason = outcome
        culprits = next((some & set(free) for some in suspects if some & set(free)), set(free))
        if not culprits:
            break
        share = sum(wanted[atom] for atom in culprits) / sum(sizes[atom] for atom in culprits)
        for atom in culprits:
            step[atom], wanted[atom] = (step[atom] + 1, max(1, round(share * sizes[atom])))
            if step[atom] == len(ladder[atom]):
                frozen[atom] = reason
    raise InputError(f"no sizes were found that the forward accepts, in {MOST_ATTEMPTS} attempts")


def ladders(coupling: Coupling, classes: Classes) -> dict[int, tuple[int, ...]]:
    """Atom -> the steps that its number is tried in, finest first.

    Behind a channel shuffle of g groups, multiples of g in every group always fit: g * g in all.
    """
    groups = dict.fromkeys(classes.atom_sizes(), 1)
    for side in coupling.sides:
        for atom in np.unique(coupling.atom[side.component]).tolist():
            groups[atom] = max(groups[atom], side.groups)
    return {
        atom: tuple(step for step in ((1, 2, groups[atom] ** 2) if groups[atom] > 1 else STEPS) if step < max(2, size))
        for atom, size in classes.atom_sizes().items()
    }


def _attempt(
    subject: Subject, full: Analysis, classes: Classes, counts: np.ndarray
) -> Fit | tuple[list[set[int]], str]:
    """A fit, or sets of atoms that may be in its way (the likeliest first) and what went wrong."""
    coupling = full.coupling
    try:
        skeleton = analyse(subject, skeleton_sizes(coupling, _first_ones(classes, counts)), full)
    except TraceError as error:
        where = error.where or type(subject.model).__name__
        return _near(subject.model, coupling, error), f"the forward of {where} does not follow a cut of it"
    replaces = _replaced(full.coupling, classes, skeleton.coupling)
    misfits = _misfits(coupling, skeleton.coupling, replaces == SPARE)
    if misfits.any():
        return [_makers(coupling, skeleton.coupling, misfits)], "its channels would meet others than before"
    return Fit(skeleton=skeleton, replaces=replaces)


def _replaced(full: Coupling, classes: Classes, skeleton: Coupling) -> np.ndarray:
    """(components of the skeleton,) the class that each comes from; SPARE beyond what the class had."""
    small = classes_of(skeleton)
    number = {key: n for n, key in enumerate(_keys(full, classes))}
    comes_from = np.array([number.get(key, SPARE) for key in _keys(skeleton, small)])
    rank = _ranks(small)
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


def _keys(coupling: Coupling, classes: Classes) -> list[tuple[int, bool]]:
    return list(zip(coupling.signature[classes.sample].tolist(), classes.kept.tolist(), strict=True))


def _first_ones(classes: Classes, counts: np.ndarray) -> np.ndarray:
    """(components,) whether each is among the first `counts` of its class."""
    return _ranks(classes) < counts[classes.of]


def _ranks(classes: Classes) -> np.ndarray:
    """(components,) how many of its class come before each."""
    order = np.argsort(classes.of, kind="stable")
    start = np.concatenate([[0], np.cumsum(classes.size)[:-1]])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - start[classes.of[order]]
    return rank


def _near(model: nn.Module, coupling: Coupling, error: TraceError) -> list[set[int]]:
    """Suspects, the likeliest first: atoms that touch what ran last, then the failing module, then its parents."""
    where, suspects = error.where, []
    if error.after.startswith(f"{where}." if where else ""):
        suspects.append(_touching(model, coupling, error.after))
    while where:
        suspects.append(_touching(model, coupling, where))
        where = where.rpartition(".")[0]
    return suspects


def _touching(model: nn.Module, coupling: Coupling, path: str) -> set[int]:
    """Atoms that touch the module at `path` and, when it is made of others, all modules of its kind."""
    module = model.get_submodule(path)
    alike = [path]
    if next(module.children(), None) is not None:
        alike = [name for name, other in model.named_modules() if type(other) is type(module) and name]
    return atoms_of_tensors(coupling, lambda name, _: any(name.startswith(f"{path}.") for path in alike))


def _makers(coupling: Coupling, skeleton: Coupling, unfit: np.ndarray) -> set[int]:
    """Atoms of the full model whose layers make the skeleton's `unfit` components."""
    names = {side.tensor for side in skeleton.sides if unfit[side.component].any() and side.role == "out"}
    return atoms_of_tensors(coupling, lambda name, role: name in names and role == "out")
