"""How many channels of each kind stay: the numbers nearest to what is wanted that grouped layers can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from solution.compress.coupling.components import NO_COMPONENT, Coupling, Side
from solution.contracts import InputError


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Components that can take each other's place, counted.

    of      (components,) the class of each component
    size    (classes,) how many components it has
    atom    (classes,) the atom (components made by the same layers) that it belongs to
    kept    (classes,) whether it must stay whole
    sample  (classes,) one of its components
    """

    of: np.ndarray
    size: np.ndarray
    atom: np.ndarray
    kept: np.ndarray
    sample: np.ndarray

    def atom_sizes(self) -> dict[int, int]:
        """Atom -> how many components it has."""
        return {int(atom): int(self.size[self.atom == atom].sum()) for atom in np.unique(self.atom)}


def classes_of(coupling: Coupling) -> Classes:
    """Group the components by signature."""
    kept = coupling.kept()
    keys = np.stack([coupling.signature, kept.astype(np.int64)], 1)
    _, sample, of, size = np.unique(keys, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return Classes(of=of.reshape(-1), size=size, atom=coupling.atom[sample], kept=kept[sample], sample=sample)


def first_ones(classes: Classes, counts: np.ndarray) -> np.ndarray:
    """(components,) whether each is among the first `counts` of its class."""
    return ranks(classes) < counts[classes.of]


def ranks(classes: Classes) -> np.ndarray:
    """(components,) how many of its class come before each."""
    order = np.argsort(classes.of, kind="stable")
    start = np.concatenate([[0], np.cumsum(classes.size)[:-1]])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - start[classes.of[order]]
    return rank


def count_channels(
    coupling: Coupling, classes: Classes, wanted: Mapping[int, int], multiple: Mapping[int, int], even: bool = False
) -> np.ndarray:
    """(classes,) how many components stay.

    wanted    atom -> how many of its components are to stay; atoms that are not named stay whole
    multiple  atom -> its number is a multiple of this
    even      runs that a forward takes apart keep one length, as the groups of grouped layers always do
    """
    counts = np.where(classes.kept, classes.size, 0)
    sides = [side for side in (*coupling.sides, *(coupling.runs if even else ())) if side.groups > 1]
    grouped = _grouped_classes(sides, classes)
    for atom, size in classes.atom_sizes().items():
        target = size if atom == NO_COMPONENT else wanted.get(atom, size)
        _share_out(counts, classes, (classes.atom == atom) & ~grouped, target, multiple.get(atom, 1))
    if grouped.any():
        _solve_grouped(sides, classes, grouped, wanted, multiple, counts)
    for side in coupling.sides:  # a layer that reads a part of a layer's channels needs one of them
        there = np.unique(classes.of[side.component])
        if len(there) and not counts[there].any():
            counts[there[np.argmax(classes.size[there])]] = 1
    return counts


def _share_out(counts: np.ndarray, classes: Classes, of_atom: np.ndarray, target: int, multiple: int) -> None:
    """Split an atom's target over its classes in proportion; the largest remainders get what rounding leaves."""
    members = np.flatnonzero(of_atom & ~classes.kept)
    if not len(members):
        return
    sizes, stay = classes.size[members], int(classes.size[of_atom & classes.kept].sum())
    if multiple > 1 and target < stay + sizes.sum():
        target = max(multiple, target // multiple * multiple)
    total = min(int(sizes.sum()), max(0 if stay else 1, target - stay))
    exact = sizes * (total / sizes.sum())
    share = np.floor(exact).astype(int)
    short = np.argsort(share - exact, kind="stable")[: total - share.sum()]
    share[short] += 1
    counts[members] = share


def _grouped_classes(sides: Sequence[Side], classes: Classes) -> np.ndarray:
    """(classes,) whether a class, or one that shares its atom, takes part in `sides`, which have groups."""
    grouped = np.zeros(len(classes.size), dtype=bool)
    for side in sides:
        grouped[classes.of[side.component]] = True
    return np.isin(classes.atom, np.unique(classes.atom[grouped])) & (classes.atom != NO_COMPONENT) | grouped


class _Program:
    """A mixed-integer linear program that grows row by row."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.bounds: list[tuple[float, float]] = []
        self.whole: list[int] = []
        self.rows: list[tuple[dict[int, float], float, float]] = []

    def variable(self, low: float, high: float, cost: float = 0.0, whole: bool = True) -> int:
        self.cost.append(cost)
        self.bounds.append((low, high))
        self.whole.append(int(whole))
        return len(self.cost) - 1

    def row(self, terms: dict[int, float], low: float, high: float) -> None:
        self.rows.append((terms, low, high))

    def deviation(self, terms: dict[int, float], target: float, cost: float) -> None:
        """Pay `cost` for each unit by which the sum of `terms` differs from `target`."""
        distance = self.variable(0, np.inf, cost, whole=False)
        self.row({**terms, distance: -1.0}, -np.inf, target)
        self.row({**terms, distance: 1.0}, target, np.inf)

    def solve(self, seconds: float = 10.0) -> np.ndarray | None:
        matrix = lil_array((len(self.rows), len(self.cost)))
        for number, (terms, _, _) in enumerate(self.rows):
            for variable, factor in terms.items():
                matrix[number, variable] = factor
        low, high = np.array([row[1:] for row in self.rows]).T
        solution = milp(
            np.array(self.cost),
            integrality=np.array(self.whole),
            bounds=Bounds(*np.array(self.bounds).T),
            constraints=LinearConstraint(matrix.tocsr(), low, high),
            options={"time_limit": seconds, "mip_rel_gap": 0.01},
        )
        return solution.x


def _solve_grouped(
    sides: Sequence[Side],
    classes: Classes,
    grouped: np.ndarray,
    wanted: Mapping[int, int],
    multiple: Mapping[int, int],
    counts: np.ndarray,
) -> None:
    """Fill in `counts` of the grouped classes. Multiples that cannot be had together with the groups are dropped."""
    for multiples in (multiple, {}):
        program, variable = _program(sides, classes, grouped, wanted, multiples)
        solution = program.solve()
        if solution is not None:
            for number, column in variable.items():
                counts[number] = round(solution[column])
            return
    raise InputError("no channel numbers keep the groups of the grouped layers equal: raise the number that is to stay")


def _program(
    sides: Sequence[Side], classes: Classes, grouped: np.ndarray, wanted: Mapping[int, int], multiple: Mapping[int, int]
) -> tuple[_Program, dict[int, int]]:
    program = _Program()
    numbers = np.flatnonzero(grouped).tolist()
    variable = {n: program.variable(classes.size[n] if classes.kept[n] else 0, classes.size[n]) for n in numbers}
    for side in sides:
        _equal_groups(program, side, classes, variable)
    for atom in np.unique(classes.atom[grouped]).tolist():
        _near_target(program, classes, atom, variable, wanted, multiple.get(atom, 1))
    return program, variable


def _equal_groups(program: _Program, side: Side, classes: Classes, variable: dict[int, int]) -> None:
    total = program.variable(1, len(side.component))
    each: list[dict[int, float]] = [{total: -1.0} for _ in range(side.groups)]
    members = np.stack([side.group, classes.of[side.component]])
    (group, number), positions = (lambda u: (u[0], u[1]))(np.unique(members, axis=1, return_counts=True))
    for g, n, count in zip(group.tolist(), number.tolist(), positions.tolist(), strict=True):
        each[g][variable[n]] = count / classes.size[n]
    for terms in each:
        program.row(terms, 0, 0)


def _near_target(
    program: _Program, classes: Classes, atom: int, variable: dict[int, int], wanted: Mapping[int, int], multiple: int
) -> None:
    members = np.flatnonzero(classes.atom == atom).tolist()
    size = int(classes.size[members].sum())
    target = wanted.get(atom, size) if atom != NO_COMPONENT else size
    terms = {variable[n]: 1.0 for n in members}
    program.row(terms, 1, np.inf)
    program.deviation(terms, target, 1.0)
    for n in members:
        program.deviation({variable[n]: 1.0}, classes.size[n] * target / size, 0.01)
    if multiple > 1 and target < size:
        program.row({**terms, program.variable(1, np.inf): -float(multiple)}, 0, 0)
