"""From "this much" to "so many channels in each atom": a uniform share, or one threshold over all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

import numpy as np

from solution.compress.coupling.components import NO_COMPONENT, Coupling
from solution.compress.coupling.sizes import Classes

Targets = dict[int, int]
"""Atom -> how many of its components are to stay."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The atoms that may shrink: how many components each has, how few it may come down to, which number it steps in.

    share  (atoms,) -> real-valued fraction of an atom's removable components that stay, for a pressure in [0, 1]
    """

    size: dict[int, int]
    least: dict[int, int]
    multiple: dict[int, int]
    share: Callable[[float], dict[int, float]]

    def exact(self, ratio: float) -> dict[int, float]:
        """Atom -> how many components would stay, not yet whole, but within bounds."""
        return {
            atom: max(float(self.least[atom]), self.size[atom] * share) for atom, share in self.share(ratio).items()
        }

    def whole(self, ratio: float) -> Targets:
        """The same, rounded to the nearest multiple that may be had."""
        return {atom: self._stepped(atom, number) for atom, number in self.exact(ratio).items()}

    def _stepped(self, atom: int, number: float) -> int:
        step, least, size = self.multiple[atom], self.least[atom], self.size[atom]
        stepped = max(step, round(number / step) * step)
        return min(size, stepped if stepped >= least else -(-least // step) * step)

    def lowest(self) -> Targets:
        """As few as may be."""
        return {atom: self._stepped(atom, least) for atom, least in self.least.items()}


def bounds_of(
    coupling: Coupling, classes: Classes, limits: Mapping[str, float], round_to: int, score: np.ndarray | None
) -> Bounds:
    """What may shrink and how: with a `score` (components,) by one threshold over all layers, else in equal shares.

    limits  glob pattern of layers -> the largest fraction of their channels that may go
    """
    sizes, kept = classes.atom_sizes(), coupling.kept()
    free = [int(atom) for atom in np.unique(coupling.atom[~kept]) if atom != NO_COMPONENT]
    most = _most(coupling, limits)
    fixed = {atom: int((kept & (coupling.atom == atom)).sum()) for atom in free}
    least = {a: max(1, fixed[a], int(np.ceil(sizes[a] * (1 - most.get(a, 1.0)) - 1e-9))) for a in free}
    return Bounds(
        size={atom: sizes[atom] for atom in free},
        least=least,
        multiple={atom: round_to if sizes[atom] >= round_to else 1 for atom in free},
        share=_equal_shares(free) if score is None else _threshold(coupling, free, score),
    )


def _most(coupling: Coupling, limits: Mapping[str, float]) -> dict[int, float]:
    most: dict[int, float] = {}
    for side in coupling.sides:
        layer = side.tensor.rpartition(".")[0]
        fits = [fraction for pattern, fraction in limits.items() if fnmatch(layer, pattern)]
        if side.role == "out" and fits:
            for atom in np.unique(coupling.atom[side.component]).tolist():
                most[atom] = min([most.get(atom, 1.0), *fits])
    return most


def _equal_shares(free: list[int]) -> Callable[[float], dict[int, float]]:
    return lambda ratio: dict.fromkeys(free, 1 - ratio)


def _threshold(coupling: Coupling, free: list[int], score: np.ndarray) -> Callable[[float], dict[int, float]]:
    kept = coupling.kept()
    everything = np.sort(score[~kept & np.isin(coupling.atom, free)])
    members = {atom: np.where(kept[coupling.atom == atom], np.inf, score[coupling.atom == atom]) for atom in free}

    def share(ratio: float) -> dict[int, float]:
        place = min(len(everything) - 1, int(ratio * len(everything)))
        return {atom: float((scores >= everything[place]).mean()) for atom, scores in members.items()}

    return share


def spread(classes: Classes, targets: Targets) -> np.ndarray:
    """(classes,) real-valued numbers that stay when each atom's are shared in proportion."""
    counts = classes.size.astype(float)
    for atom, number in targets.items():
        of_atom = classes.atom == atom
        kept, free = of_atom & classes.kept, of_atom & ~classes.kept
        bounds = classes.size[free].sum()
        if bounds:
            counts[free] *= max(0.0, number - classes.size[kept].sum()) / bounds
    return counts
