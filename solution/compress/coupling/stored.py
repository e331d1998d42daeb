"""Numbers that modules store and their forward reads: a width, a number of heads, sizes of a split.

No tensor shape implies them. Where the forward of a smaller net fails, the numbers of the modules that were running are
set in turn to what follows from a tensor of theirs that has become smaller; a number is kept if the forward then comes
further. What was found for a module holds for all modules of its class.

And atoms that must shrink in one proportion: heads and the width that is divided by their number, two equal halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from solution.compress.coupling.analysis import TraceRequest
from solution.compress.coupling.attributes import Place, Shape, Stored, alike
from solution.compress.coupling.components import NO_COMPONENT, Coupling, Side
from solution.compress.coupling.tracing import Trace, TraceError
from solution.contracts import InputError

MOST_TRIALS = 8
"""How many numbers are tried at one place."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A forward that failed on tensors of shapes `after`; in the full net they have shapes `before`.

    trace  the full pass
    error  what happened, and after how many calls
    ran    it came to its end, but channels meet others than in the full net
    """

    trace: Trace
    error: TraceError
    ran: bool
    before: Mapping[str, Shape]
    after: Mapping[str, Shape]


def learn(request: TraceRequest, failed: Failed, attempt: Callable[[], object]) -> bool:
    """Find stored numbers of the model with which the forward comes further, and add them to what is learned.

    attempt  runs the forward of the smaller net with what is learned; raises `TraceError` when that fails
    """
    learned = request.learned
    for trial in list(_trials(request.model, failed))[:MOST_TRIALS]:
        if trial.keys() & learned.keys() or (failed.ran and request.in_vain & trial.keys()):
            continue
        learned.update(trial)
        try:
            attempt()
        except TraceError as error:
            further = error.mode != failed.error.mode or error.position > failed.error.position
        except InputError:
            further = False
        else:
            further = True
        if further:
            return True
        request.in_vain.update(trial if failed.ran else ())
        for one in trial:
            del learned[one]
    return False


def _trials(model: nn.Module, failed: Failed) -> Iterator[Stored]:
    """Numbers that are set together, and what they go along with, the likeliest first: all numbers of a module that
    the call which failed was made with, then each of the numbers of the modules that were running.
    """
    near = failed.trace.calls[max(0, failed.error.position - 2) : failed.error.position + 4]
    literals = {number for call in near for number in _numbers(list(call.arguments.values()))}
    alone: list[tuple[int, Stored]] = []
    together: list[Stored] = []
    path: str | None = failed.error.where
    while path is not None:
        module, prefix = model.get_submodule(path), f"{path}." if path else ""
        if not type(module).__module__.startswith("torch.nn") or isinstance(module, nn.Transformer):
            kind = type(module)
            totals = {name: total for name, value in vars(module).items() if (total := _total(value))}
            seen = {name for name in totals if set(_numbers(getattr(module, name))) & literals}
            group = {name: place for name in seen if (place := _relation(name, totals, seen, prefix, failed))}
            together += [{(kind, name): place for name, place in group.items()}] if len(group) > 1 else []
            for name, total in totals.items():
                if failed.ran and name not in seen:
                    continue
                for spot in _places(total, prefix, failed)[:1]:
                    is_whole = total == failed.before[prefix + spot[0]][spot[1]]
                    alone.append((2 * (name not in seen) + (not is_whole), {(kind, name): (spot,)}))
        path = None if not path else path.rpartition(".")[0]
    yield from together
    yield from (one[1] for one in sorted(alone, key=lambda one: one[0]))


def _relation(
    name: str, totals: Mapping[str, int], seen: set[str], prefix: str, failed: Failed
) -> tuple[Place, ...] | None:
    """What a number goes along with: an axis of that length, what another number leaves of an axis, or a share."""
    places = _places(totals[name], prefix, failed)
    if places and failed.before[prefix + places[0][0]][places[0][1]] == totals[name]:
        return (places[0],)
    for other in sorted(seen - {name}):
        whole, part = (_places(total, prefix, failed) for total in (totals[name] + totals[other], totals[other]))
        if whole and part:
            return whole[0], part[0]
    return (places[0],) if places else None


def _places(total: int, prefix: str, failed: Failed) -> list[Place]:
    """Axes of a module's tensors that have become smaller, `total` with them; those of that very length first."""
    places = [
        (name.removeprefix(prefix), axis)
        for name, before in failed.before.items()
        if name.startswith(prefix)
        for axis, (old, new) in enumerate(zip(before, failed.after[name], strict=True))
        if new != old and old % total == 0 and new * total % old == 0
    ]
    return sorted(places, key=lambda place: failed.before[prefix + place[0]][place[1]] != total)


def _total(value: object) -> int:
    """What a stored number, or numbers together, come to; 0 for anything else."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return value if value > 1 else 0
    if isinstance(value, list | tuple) and value and all(type(one) is int and one > 0 for one in value):
        return sum(value)
    return 0


def _numbers(value: object) -> list[int]:
    if isinstance(value, list | tuple):
        return [number for one in value for number in _numbers(one)]
    return [value] if type(value) is int and value > 1 else []


CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def in_proportion(
    targets: Mapping[int, int], sizes: Mapping[int, int], stay: Mapping[int, int], linked: list[set[int]]
) -> dict[int, int]:
    """`targets` with one share for all atoms of a linked set, a share that the smallest of them can have.

    stay  atom -> how many of its components cannot go: the share is one of the others
    """
    targets = dict(targets)
    for atoms in linked:
        free = atoms & targets.keys()
        spare = {atom: sizes[atom] - stay[atom] for atom in atoms}
        parts = int(np.gcd.reduce(list(spare.values()))) or 1
        share = sum(max(0, targets[atom] - stay[atom]) for atom in free) / max(1, sum(spare[atom] for atom in free))
        numerator = max(1, round(share * parts)) if free == atoms else parts
        targets.update({atom: stay[atom] + spare[atom] * numerator // parts for atom in free})
    return targets


def linked_atoms(model: nn.Module, coupling: Coupling) -> list[set[int]]:
    """Disjoint sets of atoms that must shrink in one proportion (`alike`)."""
    linked: list[set[int]] = []
    for path, module in model.named_modules():
        names = alike(module, f"{path}." if path else "")
        sides = (coupling.side(name, 0) for name in names)
        linked.append(set().union(*(atoms_along(coupling, side) for side in sides if side is not None)))
    return merged(linked)


def merged(sets: list[set[int]]) -> list[set[int]]:
    """Sets that meet become one; those that are empty go."""
    disjoint: list[set[int]] = []
    for atoms in sets:
        meeting = [others for others in disjoint if others & atoms]
        disjoint = [others for others in disjoint if not others & atoms] + [atoms.union(*meeting)]
    return [atoms for atoms in disjoint if atoms]


def atoms_along(coupling: Coupling, side: Side) -> set[int]:
    """Atoms of the channels along an axis."""
    return set(coupling.atom[side.component].tolist()) - {NO_COMPONENT}


def together(model: nn.Module, coupling: Coupling, atoms: set[int]) -> list[set[int]]:
    """What the layers that make `atoms` read and make, together; and the same for the layers in their places elsewhere.

    Heads are often as large as the width that the projection reads, divided by their number.
    """
    makers = {side.tensor for side in coupling.sides if side.role == "out" and atoms & atoms_along(coupling, side)}
    places = {name.rpartition(".")[0] for name in makers} - {""}
    layers = {other for path in places for other in same_places(model, path)}
    sets: dict[str, set[int]] = {}
    for side in coupling.sides:
        layer = side.tensor.rpartition(".")[0]
        if layer in layers and side.role in ("in", "out"):
            sets.setdefault(layer, set()).update(atoms_along(coupling, side))
    return merged([found for found in sets.values() if len(found) > 1])


def author_of(model: nn.Module, path: str) -> str:
    """The innermost module around `path`, or there, that the model's author made of others."""
    while path and not is_authored(model, path):
        path = path.rpartition(".")[0]
    return path


def is_authored(model: nn.Module, path: str) -> bool:
    """Whether the module at `path` is one that the model's author made of others."""
    module = model.get_submodule(path)
    return next(module.children(), None) is not None and type(module) not in CONTAINERS


def same_places(model: nn.Module, path: str) -> list[str]:
    """`path`, and the same place in every module of the kind that its author put there."""
    owner = author_of(model, path)
    place = path[len(owner) :].removeprefix(".")
    kind = type(model.get_submodule(owner))
    return [f"{name}.{place}".strip(".") for name, other in model.named_modules() if type(other) is kind]
