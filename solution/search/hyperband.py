"""Hyperband: weak trials rest after few epochs, the best go on from where they stopped.

Every trial trains under the schedule of its whole length from its first epoch on, and a rung is a pause in it, not an
end. So nothing is stretched when a trial goes on, trials are compared at equal epochs of equal schedules, and the
recipe that is found, run in one go, gives the very weights that the search saw.

A trial goes on when it is among the best 1/eta at its rung, at once or later, when others have come in (asynchronous
successive halving, Li et al., 2020, arXiv:1810.05934). Brackets whose first rung comes later guard against settings
that start slowly (Li et al., 2018, arXiv:1603.06560). Of several objectives, the rank is the number of trials that are
better in all of them (Schmucker et al., 2021, arXiv:2106.12639). Optuna's own pruner knows one objective only and
cannot take up a trial that it has stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from solution.contracts import InputError
from solution.search.study import is_rejected, latest, root_of, rungs_of

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Hyperband:
    """Which rungs a trial stands before.

    total  epochs of a whole trial; 0 means that trials do not train, and never rest
    first  epochs before the first rung
    eta    one trial in so many goes on from a rung; the next rung is so many times as far
    """

    total: int
    first: int = 1
    eta: int = 3

    def __post_init__(self) -> None:
        if self.first < 1:
            raise InputError(f"the first rung must come after 1 epoch or more, got {self.first}")
        if self.eta < 2:
            raise InputError(f"eta must be at least 2, got {self.eta}")

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        last = len(self.rungs(0))
        return tuple(math.ceil((last + 1) / (s + 1) * self.eta**s) for s in range(last, -1, -1))

    def rungs(self, bracket: int) -> tuple[int, ...]:
        """Epochs after which a trial of `bracket` may have to rest. The last bracket has none."""
        rungs, epoch = [], self.first * self.eta**bracket
        while epoch < self.total:
            rungs.append(epoch)
            epoch *= self.eta
        return tuple(rungs)

    def bracket(self, number: int) -> int:
        """The bracket of trial `number`; all brackets cost about the same, so those that stop early get more trials."""
        place = (number * _GOLDEN) % 1 * sum(self._sizes)
        for bracket, size in enumerate(self._sizes):
            place -= size
            if place < 0:
                return bracket
        return len(self._sizes) - 1

    def places(self, num_trials: int, complete: bool) -> int:
        """How many of the trials that reached a rung go on from it.

        Until the rung is `complete`, that is nobody else can still come in, floor(n / eta); then at least one.
        """
        return math.ceil(num_trials / self.eta) if complete else num_trials // self.eta


def ranks(values: Sequence[Sequence[float]]) -> np.ndarray:
    """(N,) how many of the N `values` (minimized) are better than each: nowhere worse, and somewhere better."""
    table = np.asarray(values, dtype=float)  # (N, objectives)
    no_worse = (table[None] <= table[:, None]).all(2)
    return (no_worse & (table[None] < table[:, None]).any(2)).sum(1)


Rung = tuple[int, int]
"""Bracket and epoch."""


@dataclass(frozen=True, kw_only=True)
class Standings:
    """The `trials` of a study at their rungs.

    home    trials that rest elsewhere cannot go on here
    closed  whether no new trial will be begun
    """

    trials: Sequence[FrozenTrial]
    hyperband: Hyperband
    home: str
    closed: bool

    def goes_on(self, number: int, epoch: int) -> bool:
        """Whether trial `number` goes on from the rung at `epoch`."""
        root = root_of(self.trials[number])
        rung = (self.hyperband.bracket(root), epoch)
        return self._ranks(rung)[root] < self._places(rung)

    def promoted(self) -> FrozenTrial | None:
        """The resting trial that may go on: at the highest rung, and the best there."""
        for rung in sorted(self._groups, key=lambda rung: -rung[1]):
            resting = [root for root in self._groups[rung] if self._rests(root, rung[1])]
            if resting:
                order = self._ranks(rung)
                best = min(resting, key=lambda root: (order[root], root))
                if order[best] < self._places(rung):
                    return self._latest[best]
        return None

    @cached_property
    def _latest(self) -> dict[int, FrozenTrial]:
        return latest(self.trials)

    @cached_property
    def _groups(self) -> dict[Rung, dict[int, tuple[float, ...]]]:
        """{rung: {root: values}}."""
        groups: dict[Rung, dict[int, tuple[float, ...]]] = {}
        for root, trial in self._latest.items():
            for epoch, values in rungs_of(trial).items():
                groups.setdefault((self.hyperband.bracket(root), epoch), {})[root] = values
        return groups

    def _rests(self, root: int, epoch: int) -> bool:
        trial = self._latest[root]
        rests = trial.state == TrialState.PRUNED and not is_rejected(trial) and max(rungs_of(trial)) == epoch
        return rests and trial.user_attrs.get("home") == self.home

    def _ranks(self, rung: Rung) -> Mapping[int, int]:
        group = self._groups[rung]
        return dict(zip(group, ranks(list(group.values())), strict=True))

    def _places(self, rung: Rung) -> int:
        """How many go on from `rung`: more when nobody else can come in."""
        bracket, _ = rung
        group = self._groups[rung]
        coming = any(
            trial.state == TrialState.RUNNING
            and trial.user_attrs.get("home") == self.home
            and root not in group
            and self.hyperband.bracket(root) == bracket
            for root, trial in self._latest.items()
        )
        return self.hyperband.places(len(group), self.closed and not coming)
