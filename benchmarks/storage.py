"""What a search's storage bears: the traffic of one worker beside many, and a simulation of them all.

    python -m benchmarks.storage postgresql://user@localhost/trials
    python -m benchmarks.storage grpc://localhost:13000 --workers 10 1000

Measured: the wall time that a worker spends in the storage for a trial that trains nothing, the least of some trials,
while the study holds finished trials and one running trial for each other worker, as it would have.

Simulated, from that time: so many workers, whose trials take a given time and vary by a fifth, in one queue before a
server of some cores.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from benchmarks.search import SPACE, formula
from solution.commands.search import STORAGE
from solution.runtime import hardware
from solution.search.hyperband import Hyperband
from solution.search.study import open_storage, open_study
from solution.search.worker import TrialQueue, work
from solution.shell import without_password


class Timed:
    """A storage whose calls are counted and timed; those that are made inside others count as part of these."""

    def __init__(self, storage: BaseStorage) -> None:
        self.calls, self.seconds, self.inside = 0, 0.0, False
        for name in dir(BaseStorage):
            if not name.startswith("_"):
                setattr(storage, name, self._timed(getattr(storage, name)))

    def _timed(self, call):  # noqa: ANN001, ANN202 - any method
        def timed(*arguments, **named):  # noqa: ANN002, ANN003, ANN202
            if self.inside:
                return call(*arguments, **named)
            self.inside, start = True, time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.inside = False
                self.calls += 1
                self.seconds += time.perf_counter() - start

        return timed


def measured(url: str, num_workers: int, num_stored: int, num_trials: int) -> tuple[float, float]:
    """Calls of the storage and seconds in it, a trial, beside `num_workers` - 1 others."""
    storage, name = open_storage(url), f"benchmark-{uuid4().hex[:8]}"
    study = open_study(storage, name, "score", {})
    chance = random.Random(0)
    for state in [TrialState.COMPLETE] * num_stored + [TrialState.RUNNING] * (num_workers - 1):
        study.add_trial(_trial(chance, state))
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        queue = TrialQueue(
            study=study, space=SPACE, folder=Path(folder), num_trials=10**9, hyperband=Hyperband(total=0)
        )
        timed = Timed(storage)
        left = num_trials + 1

        def keep_on() -> bool:
            nonlocal left
            figures.append((timed.calls, timed.seconds))
            left -= 1
            return left >= 0

        work(queue, formula, keep_on=keep_on, log=lambda _: None)
    optuna.delete_study(study_name=name, storage=storage)
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(figures[1:])]
    return statistics.median(calls for calls, _ in steps), min(seconds for _, seconds in steps)


def _trial(chance: random.Random, state: TrialState) -> optuna.trial.FrozenTrial:
    kinds = SPACE.distributions()
    params = {name: repr("a") if hasattr(kind, "choices") else chance.random() for name, kind in kinds.items()}
    values = {"value": sum(value for value in params.values() if isinstance(value, float))}
    about = {"macs": 1_000_000, "f1": 0.7, "score": 0.5} if state == TrialState.COMPLETE else {"home": "elsewhere"}
    return optuna.trial.create_trial(
        params=params, distributions=kinds, user_attrs=about, state=state,
        **(values if state == TrialState.COMPLETE else {}),
    )  # fmt: skip


def waiting(num_workers: int, trial_s: float, storage_s: float, cores: int, seed: int = 0) -> float:
    """The share of the workers' time that they wait for the storage, in the second half of 20 trials each."""
    chance = random.Random(seed)
    free = [0.0] * cores  # when each core of the server is free again
    ready = [(chance.random() * trial_s, number, 0) for number in range(num_workers)]
    heapq.heapify(ready)
    waited = spent = 0.0
    while ready:
        now, number, done = heapq.heappop(ready)
        start = max(now, heapq.heappop(free))
        heapq.heappush(free, start + storage_s)
        trains = trial_s * chance.uniform(0.8, 1.2)
        if done >= 10:
            waited += start - now
            spent += start - now + storage_s + trains
        if done < 19:
            heapq.heappush(ready, (start + storage_s + trains, number, done + 1))
    return waited / spent


def main() -> None:
    """Measure, simulate and print both tables."""
    parser = argparse.ArgumentParser(description="What a search's storage bears.")
    parser.add_argument("url", nargs="?", default=os.environ.get(STORAGE), help=f"database or proxy (or ${STORAGE})")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--stored", type=int, default=100, help="finished trials that the study holds")
    parser.add_argument("--measured", type=int, default=10, help="trials that are measured")
    parser.add_argument("--cores", type=int, default=2, help="cores of the server that is simulated")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600, 3600], help="length of a trial")
    arguments = parser.parse_args()
    if not arguments.url:
        parser.error("name a database or a proxy")
    shown = without_password(arguments.url)
    print(f"{shown}, {arguments.stored} stored trials, {hardware()}, load {os.getloadavg()[0]:.1f}")
    print("| workers | calls a trial | ms in the storage a trial |\n|---|---|---|")
    storage_s = {}
    for count in arguments.workers:
        calls, storage_s[count] = measured(arguments.url, count, arguments.stored, arguments.measured)
        print(f"| {count:,} | {calls:.0f} | {1e3 * storage_s[count]:.0f} |", flush=True)
    heads = " | ".join(f"{seconds:g} s" for seconds in arguments.seconds)
    print(f"\nshare of the workers' time spent waiting, a server of {arguments.cores} cores, trials of")
    print(f"| workers | {heads} | shortest trial that it bears |\n|---|{'---|' * len(arguments.seconds)}---|")
    for count, each in storage_s.items():
        shares = " | ".join(f"{waiting(count, length, each, arguments.cores):.0%}" for length in arguments.seconds)
        print(f"| {count:,} | {shares} | {count * each / arguments.cores:.1f} s |")


if __name__ == "__main__":
    main()
