"""Who stands where: the rungs that trials have reached, and which of those that rest may go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from optuna.trial import FrozenTrial, TrialState

from solution.search.hyperband import Hyperband, ranks

Rung = tuple[int, int]
"""Bracket and epoch."""


def root_of(trial: FrozenTrial) -> int:
    """The number of the trial that `trial` goes on with; its own for a new one."""
    return trial.user_attrs.get("root", trial.number)


def rungs_of(trial: FrozenTrial) -> dict[int, tuple[float, ...]]:
    """{epochs: values, minimized} of the rungs that a trial has reached."""
    return {int(epoch): tuple(values) for epoch, values in trial.user_attrs.get("rungs", {}).items()}


def is_rejected(trial: FrozenTrial) -> bool:
    """Whether a trial was refused before it was paid for."""
    return "refused" in trial.user_attrs


def latest(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """{root: the trial that went furthest of those that go on with it}."""
    return {root_of(trial): trial for trial in trials}


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
