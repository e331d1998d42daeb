"""Which trial a worker takes next. A trial runs as long as a process holds its lock, so no time-out decides.

A worker takes, in this order: a trial that a dead worker left behind; one that rests and may now go on; a new one. The
first of a study has the recipe's own settings, so that the search begins with what one has.
A trial that goes on is a new one to Optuna, with the settings, the folder and the past of the first (its root).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from solution.runtime import write_text
from solution.search.hyperband import Hyperband
from solution.search.locks import Lock, held, try_lock
from solution.search.space import Space
from solution.search.standings import Standings, is_rejected, root_of
from solution.search.study import Sampler

_MOST_REJECTED = 10
"""At most so many trials are refused for each one that is wanted."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial in the hands of this process."""

    trial: Trial
    folder: Path
    lock: Lock


@dataclass(frozen=True, kw_only=True)
class TrialQueue:
    """Hands out the trials of `study`, each to one worker at a time.

    folder      trials keep their files in `folder`/trials/<root>; all workers of one machine share it
    num_trials  how many trials are wanted, those not counted that were refused or go on
    own         what the first trial is given instead of being drawn, as the storage keeps it
    """

    study: Study
    space: Space
    folder: Path
    num_trials: int
    hyperband: Hyperband
    seed: int = 0
    own: Mapping[str, Any] = field(default_factory=dict)

    def claim(self) -> Claim | None:
        """A trial to run, or None when there is none, now."""
        with held(self.folder / "claims.lock"):
            for trial in self._running():
                if lock := try_lock(self.trial_folder(trial) / "lock"):
                    if self._still_runs(trial):
                        return self._taken(trial, lock)
                    lock.release()
            trial = self._next()
            if trial is None:
                return None
            trial.user_attrs |= {"home": self.home}
            self.study.add_trial(trial)
            added = self._running()[-1]
            lock = try_lock(self.trial_folder(added) / "lock")
            return self._taken(added, lock) if lock else None

    def is_done(self) -> bool:
        """Whether nothing is left to claim, and nothing runs here that could leave something."""
        return not self._running() and self._next() is None

    def rests(self, number: int, epoch: int) -> bool:
        """Whether trial `number`, which has just reached the rung at `epoch`, must rest there."""
        return not self._standings().goes_on(number, epoch)

    def counted(self) -> list[FrozenTrial]:
        """The trials that count towards `num_trials`."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not is_rejected(trial) and "root" not in trial.user_attrs]

    def trial_folder(self, trial: FrozenTrial) -> Path:
        """Where `trial` keeps its files."""
        return self.folder / "trials" / f"{root_of(trial):04d}"

    @cached_property
    def home(self) -> str:
        """A name of `folder` that no other one has: trials of a study may lie on several machines."""
        path = self.folder / "home"
        if not path.exists():
            write_text(path, uuid4().hex)
        return path.read_text()

    def _running(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in trials if trial.user_attrs.get("home") == self.home]

    def _still_runs(self, trial: FrozenTrial) -> bool:
        """Asked under the trial's lock: whether its worker died, or has just told how it ended and let go of it."""
        return self.study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING

    def _next(self) -> FrozenTrial | None:
        """What to add to the study: a copy of a trial that may go on, else a new one, else nothing."""
        standings = self._standings()
        if resting := standings.promoted():
            return _continued(resting)
        if standings.closed:
            return None
        fixed = {} if standings.trials else self.own
        kinds = {name: kind for name, kind in self.space.distributions().items() if name in fixed}
        return optuna.trial.create_trial(state=TrialState.RUNNING, params=dict(fixed), distributions=kinds)

    def _standings(self) -> Standings:
        trials = self.study.get_trials(deepcopy=False)
        begun = sum("root" not in trial.user_attrs for trial in trials)
        counted = len(self.counted())
        closed = counted >= self.num_trials or begun - counted >= _MOST_REJECTED * self.num_trials
        return Standings(trials=trials, hyperband=self.hyperband, home=self.home, closed=closed)

    def _taken(self, trial: FrozenTrial, lock: Lock) -> Claim:
        self.study.sampler = Sampler(self.space.distributions(), self.seed, trial.number)
        return Claim(trial=Trial(self.study, trial._trial_id), folder=self.trial_folder(trial), lock=lock)


def _continued(trial: FrozenTrial) -> FrozenTrial:
    """A running copy of a resting `trial`."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs={"rungs": trial.user_attrs["rungs"], "root": root_of(trial)},
    )
