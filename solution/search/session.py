"""A search as settings, from which the process that starts it and each of its workers open the same study; and the pool
that starts workers, replaces those that die, and shows how far the study is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from solution.contracts import InputError, Recipe
from solution.pipeline import check_requirements, stages_to
from solution.search.hyperband import Hyperband
from solution.search.outcome import Outcome
from solution.search.space import Plain, Space, space_of
from solution.search.study import figures_of, is_rejected, latest, open_storage, open_study
from solution.search.trainer import Limits, Trainer, total_epochs
from solution.search.worker import TrialQueue, work
from solution.settings import settings_of

JOURNAL = "journal.log"
_RUNGS = 27
"""The first rung comes after this part of a trial, unless set otherwise: three rungs of a third each."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over `recipe`.

    space         {address: choices or range}
    folder        where trials, tables, plots and the recipe that is found go
    trials        how many trials are wanted
    storage       a journal file or a URL; None takes a journal file in `folder`
    name          of the study; None takes the recipe's
    objective     "score", or "front": macro F1 against MACs
    first_epochs  epochs before the first rung; None takes a 27th of a trial
    limits        what is not worth training
    """

    recipe: Recipe
    space: Plain
    folder: Path
    trials: int = 100
    storage: str | None = None
    name: str | None = None
    objective: str = "score"
    first_epochs: int | None = None
    limits: Limits = field(default_factory=Limits)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"a search needs at least 1 trial, got {self.trials}")
        if getattr(self.recipe.data, "use_all_train", False):
            raise InputError("trials are judged on the dev split, and data.use_all_train leaves none: switch it off")
        self._check_requirements()

    def _check_requirements(self) -> None:
        """A trial trains what leads to After; nets aside from that way must be there before."""
        way = stages_to(self.recipe, self.recipe.after)
        aside = {stage.name for stage in self.recipe.stages} - {stage.name for stage in way}
        for name, requires in ((stage.name, stage.step.requires) for stage in way):
            for setting, nets in requires.items():
                if missing := sorted(aside.intersection(nets)):
                    raise InputError(
                        f"{name} needs the stage {missing[0]}, which no trial trains: run the recipe once, then "
                        f"search with --set {name}.{setting}=RUN/{missing[0]}/model.safetensors"
                    )
        check_requirements(self.recipe)

    @cached_property
    def checked_space(self) -> Space:
        """The space, or an `InputError` with what is wrong in it."""
        return space_of(self.space, self.recipe)

    @cached_property
    def queue(self) -> TrialQueue:
        """Hands out the trials of the study, which is made when it is not there."""
        epochs = total_epochs(self.recipe)
        first = -(-epochs // _RUNGS) if self.first_epochs is None else self.first_epochs
        hyperband = Hyperband(total=epochs, first=first if epochs else 1)
        about = {
            "space": self.checked_space.described(),
            "recipe": self._settings(),
            "data set": {"images": self._info.counts, "classes": list(self._info.classes)},
            "pace": {"first rung": first},
        }
        study = open_study(
            open_storage(self.storage or self.folder / JOURNAL),
            self.name or self.recipe.name,
            self.objective,
            json.loads(json.dumps(about)),
        )
        return TrialQueue(
            study=study,
            space=self.checked_space,
            folder=self.folder,
            num_trials=self.trials,
            hyperband=hyperband,
            seed=self.recipe.seed,
            own=self.checked_space.own(self.recipe),
        )

    def work(self, log: Callable[[str], None] = print) -> None:
        """Be a worker until no trial is left, or the process that started this one is gone."""
        trainer = Trainer(
            recipe=self.recipe,
            num_classes=len(self._info.classes),
            limits=self.limits,
            device=self.device,
            log=log,
        )
        parent = os.getppid()
        work(self.queue, trainer, keep_on=lambda: os.getppid() == parent, log=log)

    def outcome(self) -> Outcome:
        """What has been found so far."""
        return Outcome(study=self.queue.study, recipe=self.recipe, space=self.checked_space, folder=self.folder)

    @cached_property
    def _info(self) -> Any:
        return self.recipe.data.info()

    def _settings(self) -> dict[str, Any]:
        """What must not change between two starts: all settings but where the data lie."""
        settings = {name: value for name, value in settings_of(self.recipe).items() if name != "data.path"}
        return {"name": self.recipe.name, "seed": self.recipe.seed, **settings}


_LOOK_S = 2.0
_LINE_S = 60.0
_MOST_DEATHS = 5
"""Workers that may die in a row while the study does not move."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress line of a study. `began` and `ended_before` are those of this start."""

    queue: TrialQueue
    began: float = field(default_factory=time.monotonic)
    ended_before: int = 0

    def line(self) -> str:
        """Trials by state, best score, trials an hour, time left."""
        trials = self.queue.study.get_trials(deepcopy=False)
        ended, wanted = num_ended(self.queue), self.queue.num_trials
        rate = (ended - self.ended_before) / max(time.monotonic() - self.began, 1e-9)
        left = (wanted - ended) / rate if rate else float("inf")
        running = any(trial.state == TrialState.RUNNING for trial in trials)
        rest = "the best go on" if running else "done"
        return (
            f"trial {ended}/{wanted}{_states(trials)} | {_best(trials)} | {3600 * rate:.1f} trials/h | "
            f"{f'{_duration(left)} left' if ended < wanted else rest}"
        )


def num_ended(queue: TrialQueue) -> int:
    """How many of the wanted trials have ended, if only to rest."""
    return sum(trial.state.is_finished() for trial in queue.counted())


def _states(trials: Sequence[FrozenTrial]) -> str:
    last = list(latest(trials).values())
    refused = sum(map(is_rejected, last))
    counts = {
        "running": sum(trial.state == TrialState.RUNNING for trial in last),
        "resting": sum(trial.state == TrialState.PRUNED for trial in last) - refused,
        "failed": sum(trial.state == TrialState.FAIL for trial in last),
        "refused": refused,
    }
    return "".join(f", {count} {name}" for name, count in counts.items() if count)


def _best(trials: Sequence[FrozenTrial]) -> str:
    done = [(figures.score, trial.number) for trial in trials if (figures := figures_of(trial))]
    return f"best score {min(done)[0]:.4f} (trial {min(done)[1]})" if done else "no score yet"


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


@dataclass(kw_only=True)
class WorkerPool:
    """The worker processes of one start.

    command  what starts a worker
    secrets  environment variables of a worker: what nobody should read in a list of processes
    logs     the folder that their output goes to
    """

    command: Sequence[str]
    size: int
    logs: Path
    queue: TrialQueue
    secrets: Mapping[str, str] = field(default_factory=dict)
    log: Callable[[str], None] = print
    processes: dict[int, subprocess.Popen] = field(default_factory=dict)

    def run(self) -> None:
        """Work until the study is done. A dead worker is replaced; `InputError` when they die without getting on."""
        self.logs.mkdir(parents=True, exist_ok=True)
        progress = Progress(queue=self.queue, ended_before=num_ended(self.queue))
        status = _StatusLine(self.log)
        try:
            for number in range(self.size):
                self._start(number)
            self._watch(lambda: status.show(progress.line()))
            status.end(progress.line())
        finally:
            self._stop()

    def _watch(self, show: Callable[[], None]) -> None:
        deaths, moved = 0, -1
        while any(process.poll() is None for process in self.processes.values()):
            time.sleep(_LOOK_S)
            show()
            events = self._num_events()
            for number, process in list(self.processes.items()):
                if process.poll():
                    deaths = deaths + 1 if events == moved else 1
                    moved = events
                    self._replace(number, process.returncode, deaths)

    def _num_events(self) -> int:
        """A number that grows whenever a trial gets on."""
        trials = self.queue.study.get_trials(deepcopy=False)
        return sum(trial.state.is_finished() + len(trial.user_attrs.get("rungs", ())) for trial in trials)

    def _replace(self, number: int, code: int, deaths: int) -> None:
        log = self._log(number)
        if deaths > _MOST_DEATHS:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise InputError(f"workers die as soon as they start; the last lines of {log}:\n{last}")
        self.log(f"worker {number} died (code {code}) and is replaced; its trial goes on. See {log}")
        self._start(number)

    def _start(self, number: int) -> None:
        with self._log(number).open("ab") as log:
            self.processes[number] = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.secrets}
            )

    def _log(self, number: int) -> Path:
        return self.logs / f"{number}.log"

    def _stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


class _StatusLine:
    """One line that is written over on a terminal; elsewhere a line a minute, if it has changed."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log, self.live = log, sys.stdout.isatty()
        self.last, self.at = "", 0.0

    def show(self, line: str) -> None:
        """Show the line."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="", flush=True)
        elif line != self.last and time.monotonic() - self.at >= _LINE_S:
            self.log(line)
            self.last, self.at = line, time.monotonic()

    def end(self, line: str) -> None:
        """Show the last line for good."""
        self.log(f"\r{line}" if self.live else line)
