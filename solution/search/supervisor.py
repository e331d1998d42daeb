"""Starts workers, replaces those that die, and shows how far the study is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from solution.contracts import InputError
from solution.search.study import figures_of, is_rejected, latest
from solution.search.worker import TrialQueue

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
