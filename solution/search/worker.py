"""A worker: it takes trials until none is left. A trial that fails is recorded, and the next one is taken."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from solution.contracts import InputError
from solution.search.outcomes import Stopped, TrialPaused, TrialRejected
from solution.search.standings import rungs_of
from solution.search.study import Figures, figures_of, objective_of
from solution.search.trial_queue import Claim, TrialQueue

MOST_STARTS = 10
"""A trial that was begun so often without reaching its next rung kills its workers, and is given up."""
_PAUSE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Task:
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
        """Record the figures at a rung. Raises `Rested` unless the trial goes on."""
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
        """Raise `Stopped` when the worker was told to stop."""
        if not self.keep_on():
            raise Stopped


Objective = Callable[[Task], Figures]
"""Runs one trial. It may raise `Rested`, `Refused` and `Stopped`; any other exception is a failure of the trial."""


def work(
    queue: TrialQueue,
    objective: Objective,
    keep_on: Callable[[], bool] = lambda: True,
    log: Callable[[str], None] = print,
) -> None:
    """Run trials of `desk` until none is left or `keep_on` says no."""
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


def _run(queue: TrialQueue, claim: Claim, objective: Objective, keep_on: Callable[[], bool]) -> str:
    """Run one trial, record how it ended, and say so."""
    trial, study = claim.trial, queue.study
    try:
        _count_start(claim)
        figures = objective(Task(queue=queue, claim=claim, drawn=queue.space.draw(trial), keep_on=keep_on))
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
    said = f"{type(error).__name__}: {error}"
    claim.folder.mkdir(parents=True, exist_ok=True)
    (claim.folder / "error.txt").write_text("".join(traceback.format_exception(error)))
    claim.trial.set_user_attr("error", said)
    queue.study.tell(claim.trial, state=TrialState.FAIL)
    return f"failed: {said}"
