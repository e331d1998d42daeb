"""What a search costs besides training, and whether it survives kills.

    python -m benchmarks.search

Overhead: a journal file holds 1,000 trials of 15 settings; the time of a trial that trains nothing, from one claim to
the next. Kills: 1,000 such trials by two workers, of which 20 are killed (SIGKILL) at random moments and replaced.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from solution.search.hyperband import Hyperband
from solution.search.space import Choices, Range, Space
from solution.search.study import Figures, open_storage, open_study
from solution.search.worker import TrialContext, TrialQueue, work

NUM_FIELDS = 15
SPACE = Space(
    fields=(
        *((f"x{index}", Range(low=0.0, high=1.0)) for index in range(10)),
        *((f"c{index}", Choices(values=("a", "b", "c", "d"))) for index in range(NUM_FIELDS - 10)),
    )
)


def queue(folder: Path, num_trials: int) -> TrialQueue:
    """The study in `folder`."""
    study = open_study(open_storage(folder / "journal.log"), "benchmark", "score", {})
    return TrialQueue(study=study, space=SPACE, folder=folder, num_trials=num_trials, hyperband=Hyperband(total=0))


def formula(task: TrialContext) -> Figures:
    """A trial that trains nothing; it notes that it was run to its end."""
    score = sum(value for value in task.drawn.values() if isinstance(value, float))
    with (task.queue.folder / "ran.txt").open("a") as file:
        file.write(f"{task.claim.trial.number}\n")
    return Figures(macs=1_000_000, f1=0.7, score=score)


def overhead_ms(num_stored: int, num_measured: int) -> tuple[float, float, float]:
    """Milliseconds a trial beside `num_stored` others: wall and CPU of ours, CPU of drawing by the univariate TPE."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = queue(folder, num_stored + num_measured)
        stored = [_stored(np.random.default_rng(index)) for index in range(num_stored)]
        ours.study.add_trials(stored)
        moments: list[tuple[float, float]] = []

        def timed(task: TrialContext) -> Figures:
            moments.append((time.perf_counter(), time.process_time()))
            return formula(task)

        work(ours, timed, log=lambda _: None)
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(moments)]
    wall, cpu = (1e3 * statistics.median(step[index] for step in steps) for index in (0, 1))
    return wall, cpu, _univariate_ms(stored, num_measured)


def _stored(chance: np.random.Generator) -> FrozenTrial:
    numbers = {name: float(chance.random()) for name, field in SPACE.fields if isinstance(field, Range)}
    choices = {name: repr(str(chance.choice(list("abcd")))) for name, field in SPACE.fields if name not in numbers}
    score = sum(numbers.values())
    about = {"macs": 1_000_000, "f1": 0.7, "score": score}
    return optuna.trial.create_trial(
        params=numbers | choices, distributions=SPACE.distributions(), value=score, user_attrs=about
    )


def _univariate_ms(stored: list[FrozenTrial], num_measured: int) -> float:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(multivariate=False, seed=0))
    study.add_trials(stored)
    times = []
    for _ in range(min(num_measured, 5)):
        start = time.process_time()
        study.tell(study.ask(stored[0].distributions), 0.0)
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def survive(num_trials: int, num_kills: int, seed: int) -> tuple[Counter[str], int, float]:
    """Trials by state, trials that ran to their end more than once, and seconds."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.perf_counter()
        study = queue(folder, num_trials).study
        workers = [_worker(folder, num_trials) for _ in range(2)]
        for kill in range(num_kills):
            wanted = (kill + chance.random()) * 0.9 * num_trials / num_kills
            while len(study.get_trials(deepcopy=False)) < wanted:
                time.sleep(0.01)
            time.sleep(0.2 * chance.random())
            index = chance.randrange(2)
            workers[index].kill()
            workers[index].wait()
            workers[index] = _worker(folder, num_trials)
        for worker in workers:
            worker.wait()
        states = Counter(trial.state.name for trial in study.get_trials(deepcopy=False))
        runs = Counter((folder / "ran.txt").read_text().split())
        return states, sum(count > 1 for count in runs.values()), time.perf_counter() - start


def _worker(folder: Path, num_trials: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.search", "--worker", str(folder), str(num_trials)])


def main() -> None:
    """Run both and print the tables."""
    parser = argparse.ArgumentParser(description="What a search costs besides training; kills.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--measured", type=int, default=30, help="trials whose overhead is measured")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=2, metavar=("DIR", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(queue(Path(arguments.worker[0]), int(arguments.worker[1])), formula, log=lambda _: None)
        return
    wall, cpu, univariate = overhead_ms(arguments.trials, arguments.measured)
    print(f"{arguments.trials:,} stored trials of {NUM_FIELDS} settings, journal file, load {os.getloadavg()[0]:.1f}")
    print(f"| a trial besides training, median of {arguments.measured - 1} | ms |\n|---|---|")
    print(f"| ours, wall | {wall:.1f} |\n| ours, CPU | {cpu:.1f} |")
    print(f"| drawing alone by the univariate TPE, CPU | {univariate:.1f} |", flush=True)
    states, twice, seconds = survive(arguments.trials, arguments.kills, arguments.seed)
    complete = states[TrialState.COMPLETE.name]
    print(f"\n{arguments.trials:,} trials, 2 workers, {arguments.kills} killed, {seconds:.0f} s, seed {arguments.seed}")
    print("| complete | lost | in the study twice | run to the end again after a kill |\n|---|---|---|---|")
    print(f"| {complete} | {arguments.trials - complete} | {sum(states.values()) - arguments.trials} | {twice} |")


if __name__ == "__main__":
    main()
