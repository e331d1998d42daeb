"""Which original channel comes to lie at each position of the cut net."""

from __future__ import annotations

import numpy as np

from solution.compress.coupling.components import Coupling, Side
from solution.compress.coupling.fitting import Fit
from solution.compress.coupling.sizes import Classes
from solution.contracts import InputError


def choose(classes: Classes, fitted: Fit, score: np.ndarray) -> np.ndarray:
    """(components of the skeleton,) the original component in the place of each: the best-scored of its class.

    They keep their order. score: (components of the full model,), higher stays.
    """
    chosen = np.empty(len(fitted.replaces), dtype=np.int64)
    for number in np.unique(fitted.replaces).tolist():
        places = np.flatnonzero(fitted.replaces == number)
        members = np.flatnonzero(classes.of == number)
        best = members[np.argsort(-score[members], kind="stable")[: len(places)]]
        chosen[places] = np.sort(best)
    return chosen


def selections(full: Coupling, skeleton: Coupling, chosen: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    """(Tensor, axis) -> kept indices in the order in which channels arrive there, for every axis that changes."""
    found = {}
    for side in full.sides:
        small = skeleton.side(*side.key)
        if small is None:
            raise InputError(f"channels no longer lie along axis {side.axis} of {side.tensor} after the cut")
        kept = _kept_positions(side, small, chosen)
        if not np.array_equal(kept, np.arange(len(side.component))):
            found[side.key] = kept
            if side.role == "output":
                raise InputError(f"the cut would change the order of {side.tensor}")
    return found


def _kept_positions(side: Side, small: Side, chosen: np.ndarray) -> np.ndarray:
    """Positions of `side`, in the order of `small`: the nth of a component in a group is its nth there."""
    wanted = _ranked(chosen[small.component], small.group)
    position = {key: p for p, key in enumerate(_ranked(side.component, side.group))}
    return np.array([position[key] for key in wanted], dtype=np.int64)


def _ranked(component: np.ndarray, group: np.ndarray) -> list[tuple[int, int, int]]:
    seen: dict[tuple[int, int], int] = {}
    ranked = []
    for pair in zip(component.tolist(), group.tolist(), strict=True):
        seen[pair] = seen.get(pair, -1) + 1
        ranked.append((*pair, seen[pair]))
    return ranked
