"""Atoms that must shrink in one proportion: heads and the width that is divided by their number, two equal halves.

Some modules are known to want that (`alike`); of others it is tried where their forward fails.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from solution.compress.coupling.attributes import alike
from solution.compress.coupling.components import NO_COMPONENT, Coupling, Side

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def in_proportion(targets: Mapping[int, int], sizes: Mapping[int, int], linked: list[set[int]]) -> dict[int, int]:
    """`wanted` with one share for all atoms of a linked set, a share that the smallest of them can have."""
    targets = dict(targets)
    for atoms in linked:
        free = atoms & targets.keys()
        parts = int(np.gcd.reduce([sizes[atom] for atom in atoms]))
        share = sum(targets[atom] for atom in free) / max(1, sum(sizes[atom] for atom in free))
        numerator = max(1, round(share * parts)) if free == atoms else parts
        targets.update({atom: sizes[atom] * numerator // parts for atom in free})
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
