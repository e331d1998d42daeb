"""Splits: what a folder called "Validation" stands for, and stratified, seeded splits as pure functions of the labels.

Train learns, dev decides, val judges: no step, search or early stopping may look at val. Only `tasks.judge` reads it,
for the rows of a run (`pipeline`) and for the commands that judge. Dev is a part of train that `loaders` sets apart; a
folder never is dev.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from solution.contracts import InputError

_CALLED = {
    "train": "train|training",
    "val": "val|valid|validate|validation|dev|devel|development",
    "test": "test|testing|eval|evaluation|hold[ _-]?out",
}
_AFTER = r"([ _-]?set)?[ _-]?\d*"
KNOWN = "train, training; val, valid, validation, dev; test, testing, eval, evaluation, holdout"


def split_called(folder: str) -> str | None:
    """The split that a folder or table of this name stands for, or None: "Validation_set" is "val", "train2017" train.

    What others call dev is val here: it is there from the start, and judges. A split called test judges without one.
    """
    return next((split for split, names in _CALLED.items() if re.fullmatch(f"({names}){_AFTER}", folder.lower())), None)


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two sets of positions, (rest, part), each ascending: `part` has the fraction `share` of every class.

    labels: (N,) int64. Every class that has at least two pictures gives at least one to each side; a single picture
    stays in the rest. Raises `InputError` when a side would be empty.
    """
    if not 0 < share < 1:
        raise InputError(f"share must lie between 0 and 1, got {share}")
    rng = np.random.default_rng(seed)
    part = np.concatenate([_some(np.flatnonzero(labels == label), share, rng) for label in np.unique(labels)])
    rest = np.setdiff1d(np.arange(len(labels)), part)
    if not len(part) or not len(rest):
        raise InputError(f"{len(labels)} pictures are too few to split off {share:.0%} of each class")
    return tuple(rest.tolist()), tuple(sorted(part.tolist()))


def fold(
    labels: np.ndarray, folds: int, number: int, seed: int, names: Sequence[str] = ()
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(rest, part), each ascending: `part` is one of `folds` stratified parts of the positions, counted from 0.

    Over all numbers every position is in exactly one part. `InputError` when a class has fewer pictures than folds:
    it would vanish from a part. names: those of the classes, for the message.
    """
    if not 0 <= number < folds or folds < 2:
        raise InputError(f"fold must lie between 0 and {folds - 1} of at least 2 folds, got fold {number} of {folds}")
    found, counts = np.unique(labels, return_counts=True)
    if len(labels) and counts.min() < folds:
        fewest = found[counts.argmin()]
        raise InputError(
            f"class {names[fewest] if names else fewest} has {counts.min()} pictures, fewer than {folds} folds: "
            "it would vanish from one; take fewer folds or add pictures"
        )
    rng = np.random.default_rng([seed, folds])
    shuffled = [rng.permutation(np.flatnonzero(labels == name)) for name in found]
    # Dealt out class after class without starting anew, so that the parts differ by one picture at most.
    part = np.concatenate(shuffled)[number::folds]
    rest = np.setdiff1d(np.arange(len(labels)), part)
    return tuple(rest.tolist()), tuple(sorted(part.tolist()))


def _some(positions: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    wanted = round(len(positions) * share)
    wanted = min(max(wanted, 1), len(positions) - 1) if len(positions) > 1 else 0
    return rng.permutation(positions)[:wanted]
