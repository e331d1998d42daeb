"""A worker: it takes trials until none is left. A trial that fails is recorded, and the next one is taken.

Which trial a worker takes next. A trial runs as long as a process holds its lock, so no time-out decides.

A worker takes, in this order: a trial that a dead worker left behind; one that rests and may now go on; a new one. The
first of a study has the recipe's own settings, so that the search begins with what one has.
A trial that goes on is a new one to Optuna, with the settings, the folder and the past of the first (its root).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from solution.contracts import InputError
from solution.locks import Lock, held, try_lock
from solution.runtime import write_text
from solution.search.hyperband import Hyperband, Standings, is_rejected, root_of
from solution.search.space import Space
from solution.search.study import (
    Figures,
    Sampler,
    Stopped,
    TrialPaused,
    TrialRejected,
    figures_of,
    objective_of,
    rungs_of,
)

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
            # Every look at the trials reads those of all running workers again: one before and one after suffice.
            trials = self._trials()
            for trial in self._running(trials):
                if lock := try_lock(self.trial_folder(trial) / "lock"):
                    if self._still_runs(trial):
                        return self._taken(trial, lock)
                    lock.release()
            following = self._next(trials)
            if following is None:
                return None
            following.user_attrs |= {"home": self.home}
            self.study.add_trial(following)
            trials = self._trials()
            added = self._running(trials)[-1]
            if self._one_too_many(added, trials):
                return None
            lock = try_lock(self.trial_folder(added) / "lock")
            return self._taken(added, lock) if lock else None

    def is_done(self) -> bool:
        """Whether nothing is left to claim, and nothing runs here that could leave something."""
        trials = self._trials()
        return not self._running(trials) and self._next(trials) is None

    def rests(self, number: int, epoch: int) -> bool:
        """Whether trial `number`, which has just reached the rung at `epoch`, must rest there."""
        return not self._standings(self._trials()).goes_on(number, epoch)

    def counted(self) -> list[FrozenTrial]:
        """The trials that count towards `num_trials`."""
        return _counted(self._trials())

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

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _running(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        running = (trial for trial in trials if trial.state == TrialState.RUNNING)
        return [trial for trial in running if trial.user_attrs.get("home") == self.home]

    def _still_runs(self, trial: FrozenTrial) -> bool:
        """Under the trial's lock: whether its worker died, or has just recorded how it ended and let go of it."""
        return self._trials()[trial.number].state == TrialState.RUNNING

    def _next(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """What to add to the study: a copy of a trial that may go on, else a new one, else nothing."""
        standings = self._standings(trials)
        if resting := standings.promoted():
            return _continued(resting)
        if standings.closed:
            return None
        fixed = {} if standings.trials else self.own
        kinds = {name: kind for name, kind in self.space.distributions().items() if name in fixed}
        return optuna.trial.create_trial(state=TrialState.RUNNING, params=dict(fixed), distributions=kinds)

    def _standings(self, trials: Sequence[FrozenTrial]) -> Standings:
        begun = sum("root" not in trial.user_attrs for trial in trials)
        counted = len(_counted(trials))
        closed = counted >= self.num_trials or begun - counted >= _MOST_REJECTED * self.num_trials
        return Standings(trials=trials, hyperband=self.hyperband, home=self.home, closed=closed)

    def _one_too_many(self, added: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
        """Whether another machine took the last trial at the same moment; `added` is then refused."""
        before = [trial for trial in _counted(trials) if trial.number < added.number]
        if "root" in added.user_attrs or len(before) < self.num_trials:
            return False
        trial = Trial(self.study, added._trial_id)
        trial.set_user_attr("refused", "another machine took the last trial at the same moment")
        self.study.tell(trial, state=TrialState.FAIL)
        return True

    def _taken(self, trial: FrozenTrial, lock: Lock) -> Claim:
        self.study.sampler = Sampler(self.space.distributions(), self.seed, trial.number)
        return Claim(trial=Trial(self.study, trial._trial_id), folder=self.trial_folder(trial), lock=lock)


def _counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if not is_rejected(trial) and "root" not in trial.user_attrs]


def _continued(trial: FrozenTrial) -> FrozenTrial:
    """A running copy of a resting `trial`."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs={"rungs": trial.user_attrs["rungs"], "root": root_of(trial)},
    )


MOST_STARTS = 10
"""A trial that was begun so often without reaching its next rung kills its workers, and is given up."""
_PAUSE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What an objective knows of its trial.

    drawn    {name of the space: value}
    keep_on  whether the worker may go on
    """

    queue: TrialQueue
    claim: Claim
    drawn: dict[str, Any]
    keep_on: Callable[[], bool] = lambda: True

    @property
    def folder(self) -> Path:
        """Where the trial keeps its files; a trial that is taken up again finds them there."""
        return self.claim.folder

    @property
    def objective(self) -> str:
        """What is sought, a key of `study.OBJECTIVES`."""
        return objective_of(self.queue.study)

    def open_rungs(self) -> list[int]:
        """Epochs of the rungs that the trial has not reached yet."""
        frozen = self.queue.study.get_trials(deepcopy=False)[self.claim.trial.number]
        bracket = self.queue.hyperband.bracket(frozen.user_attrs.get("root", frozen.number))
        return [epoch for epoch in self.queue.hyperband.rungs(bracket) if epoch not in rungs_of(frozen)]

    def at_rung(self, epoch: int, figures: Figures) -> None:
        """Record the figures at a rung. Raises `TrialPaused` unless the trial goes on."""
        trial = self.claim.trial
        rungs = {**trial.user_attrs.get("rungs", {}), str(epoch): figures.minimized(self.objective)}
        if self.objective == "score":  # Optuna takes intermediate values of one objective only
            trial.report(figures.score, epoch)
        trial.set_user_attr("f1", figures.f1)
        trial.set_user_attr("macs", figures.macs)
        trial.set_user_attr("rungs", rungs)
        if self.queue.rests(trial.number, epoch):
            raise TrialPaused(f"rests after {epoch} epochs")

    def done(self) -> list[Figures]:
        """The figures of all trials that were trained to their end."""
        return [figures for trial in self.queue.study.get_trials(deepcopy=False) if (figures := figures_of(trial))]

    def check_alive(self) -> None:
        """Raise `Stopped` when the worker was stopped."""
        if not self.keep_on():
            raise Stopped


TrialObjective = Callable[[TrialContext], Figures]
"""Runs one trial. It may raise `TrialPaused`, `TrialRejected` and `Stopped`; any other exception is a failure."""


def work(
    queue: TrialQueue,
    objective: TrialObjective,
    keep_on: Callable[[], bool] = lambda: True,
    log: Callable[[str], None] = print,
) -> None:
    """Run trials of `queue` until none is left or `keep_on` returns False."""
    while keep_on():
        claim = queue.claim()
        if claim is None:
            if queue.is_done():
                return
            time.sleep(_PAUSE_S)
            continue
        try:
            log(f"trial {claim.trial.number}: {_run(queue, claim, objective, keep_on)}")
        finally:
            claim.lock.release()


def _run(queue: TrialQueue, claim: Claim, objective: TrialObjective, keep_on: Callable[[], bool]) -> str:
    """Run one trial, record how it ended, and return it."""
    trial, study = claim.trial, queue.study
    try:
        _count_start(claim)
        figures = objective(TrialContext(queue=queue, claim=claim, drawn=queue.space.draw(trial), keep_on=keep_on))
    except Stopped:
        return "stopped"
    except TrialPaused as rest:
        study.tell(trial, state=TrialState.PRUNED)
        return str(rest)
    except TrialRejected as refused:
        trial.set_user_attr("refused", str(refused))
        trial.set_constraint("hope", refused.excess)
        study.tell(trial, state=TrialState.PRUNED)
        return f"refused: {refused}"
    except Exception as error:  # whatever a net, a step or a library does wrong
        return _failed(queue, claim, error)
    for name, value in vars(figures).items():
        trial.set_user_attr(name, value)
    study.tell(trial, figures.values(objective_of(study)))
    return f"{figures.macs:,} MACs, macro F1 {figures.f1:.4f}, score {figures.score:.4f}"


def _count_start(claim: Claim) -> None:
    trial = claim.trial
    num_rungs = len(trial.user_attrs.get("rungs", {}))
    reached, starts = trial.user_attrs.get("starts", (num_rungs, 0))
    starts = starts + 1 if reached == num_rungs else 1
    trial.set_user_attr("starts", (num_rungs, starts))
    if starts > MOST_STARTS:
        raise InputError(f"its worker died {MOST_STARTS} times without getting any further (out of memory?)")


def _failed(queue: TrialQueue, claim: Claim, error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}"
    claim.folder.mkdir(parents=True, exist_ok=True)
    (claim.folder / "error.txt").write_text("".join(traceback.format_exception(error)))
    claim.trial.set_user_attr("error", reason)
    queue.study.tell(claim.trial, state=TrialState.FAIL)
    return f"failed: {reason}"
