"""Stratified, seeded splits: pure functions of the labels."""

from __future__ import annotations

import numpy as np

from solution.contracts import InputError


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two sets of positions, (rest, part), each ascending: `part` has the fraction `share` of every class.

    labels: (N,) int64. Every class that has at least two pictures gives at least one to each side; a single picture
    stays in the rest. Raises `InputError` when a side would be empty.
    """
    if not 0 < share < 1:
        raise InputError(f"share must lie between 0 and 1, got {share}")
    chance = np.random.default_rng(seed)
    part = np.concatenate([_some(np.flatnonzero(labels == label), share, chance) for label in np.unique(labels)])
    rest = np.setdiff1d(np.arange(len(labels)), part)
    if not len(part) or not len(rest):
        raise InputError(f"{len(labels)} pictures are too few to split off {share:.0%} of each class")
    return tuple(rest.tolist()), tuple(sorted(part.tolist()))


def _some(positions: np.ndarray, share: float, chance: np.random.Generator) -> np.ndarray:
    wanted = round(len(positions) * share)
    wanted = min(max(wanted, 1), len(positions) - 1) if len(positions) > 1 else 0
    return chance.permutation(positions)[:wanted]
