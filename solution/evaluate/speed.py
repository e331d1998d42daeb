"""How fast nets answer: latency, throughput, memory and loading, measured in turns, each net in a process of its own.

A noisy machine slows whatever runs just then. So all nets stay loaded, and every round calls each of them for a
moment, in an order that rotates. Threads and peak memory belong to a process: nets that shared one would share them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from solution.contracts import InputError
from solution.runtime import set_threads

_LEAST_CALLS = 3
_LEAVE_SECONDS = 2.0
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A net in its runtime: `run` takes (B, *shape) float32 images."""

    run: Callable[[np.ndarray], Any]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class BenchmarkCase:
    """What is measured. Its two functions are sent to another process, so they must be pickled by their names.

    model, runtime, precision, threads   as the table names it
    ready     imports the runtime, which is not part of loading
    open      loads the net
    """

    model: str
    runtime: str
    precision: str
    threads: int
    ready: Callable[[], None]
    open: Callable[[], Opened]

    def __str__(self) -> str:
        return f"{self.model}, {self.runtime} {self.precision}, {self.threads} thread(s)"


_MOST_ROUNDS, _MOST_BATCH = 100_000, 65_536


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How long is measured: `rounds` after one of warm-up; in each, `seconds` for every net and every batch size."""

    rounds: int = 10
    seconds: float = 0.2
    batches: tuple[int, ...] = (1, 64)

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= _MOST_ROUNDS or self.seconds <= 0:
            raise InputError(
                f"rounds must be 1 to {_MOST_ROUNDS:,} and seconds above 0, got {self.rounds} and {self.seconds}"
            )
        if not self.batches or min(self.batches) < 1 or max(self.batches) > _MOST_BATCH:
            raise InputError(f"batches must be 1 to {_MOST_BATCH:,}, got {self.batches}")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured of one subject.

    times_ms    {batch size: milliseconds of each call}
    load_ms     from the file to the first answer
    peak_bytes  most memory above what the process held before loading; None where the system does not report it
    """

    model: str
    runtime: str
    precision: str
    threads: int
    times_ms: dict[int, tuple[float, ...]] = field(repr=False)
    load_ms: float
    peak_bytes: int | None

    @property
    def latency_batch(self) -> int:
        """The smallest batch: its calls are the latencies."""
        return min(self.times_ms)

    def percentile_ms(self, percent: float) -> float:
        """Of the calls with the smallest batch: a latency."""
        return float(np.percentile(self.times_ms[self.latency_batch], percent))

    def images_per_s(self) -> dict[int, float]:
        """{batch size: throughput} by the median call."""
        return {batch: 1e3 * batch / float(np.median(times)) for batch, times in self.times_ms.items()}

    def figures(self) -> dict[str, Any]:
        """All of it but the single calls."""
        rates = self.images_per_s()
        best = max(rates, key=lambda batch: rates[batch])
        named = {name: getattr(self, name) for name in ("model", "runtime", "precision", "threads")}
        return named | {
            "latency_batch": self.latency_batch,
            "p50_ms": round(self.percentile_ms(50), 4),
            "p95_ms": round(self.percentile_ms(95), 4),
            "images_per_s": round(rates[best], 1),
            "best_batch": best,
            "peak_bytes": self.peak_bytes,
            "load_ms": round(self.load_ms, 1),
        }


def measure(cases: Sequence[BenchmarkCase], turns: Turns, log: Callable[[str], None] = print) -> list[Speed]:
    """One `Speed` per subject. `InputError` with the subject's name when it cannot be loaded or run."""
    with contextlib.ExitStack() as stack:
        workers = []
        for case in cases:
            log(f"loading {case}")
            workers.append(stack.enter_context(_started(case)))
        for number in range(turns.rounds + 1):
            log(f"round {number} of {turns.rounds}" if number else "warm-up")
            start = number % len(workers) if workers else 0
            for worker in workers[start:] + workers[:start]:
                worker.turn(turns, kept=number > 0)
        return [worker.finished() for worker in workers]


@dataclass(kw_only=True, eq=False)
class _Worker:
    """The other process, as seen from here."""

    case: BenchmarkCase
    pipe: Connection
    load_ms: float = 0.0
    times_ms: dict[int, list[float]] = field(default_factory=dict)

    def request(self, *words: Any) -> Any:
        """Send `words`, if any, and wait for the answer."""
        try:
            if words:
                self.pipe.send(words)
            answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise InputError(f"{self.case}: its process ended without an answer; is memory short?") from error
        if isinstance(answer, str):
            raise InputError(f"{self.case}: {answer}")
        return answer

    def turn(self, turns: Turns, *, kept: bool) -> None:
        """A moment's work at each batch size."""
        for batch in turns.batches:
            times = self.request(batch, turns.seconds)
            if kept:
                self.times_ms.setdefault(batch, []).extend(times)

    def finished(self) -> Speed:
        """All that was measured."""
        names = {name: getattr(self.case, name) for name in ("model", "runtime", "precision", "threads")}
        times = {batch: tuple(times) for batch, times in self.times_ms.items()}
        return Speed(**names, times_ms=times, load_ms=self.load_ms, peak_bytes=self.request(0, 0.0))


@contextlib.contextmanager
def _started(case: BenchmarkCase) -> Iterator[_Worker]:
    """A process that has loaded the subject, and that ends with the block."""
    context: Any = multiprocessing.get_context(_start_method())
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, case), daemon=True)
    with _without_script(case):
        process.start()
    theirs.close()
    try:
        worker = _Worker(case=case, pipe=ours)
        worker.load_ms = worker.request()
        yield worker
    finally:
        ours.close()
        process.join(_LEAVE_SECONDS)  # a process that is killed leaves semaphores behind, of which Python complains
        process.kill()
        process.join()


@contextlib.contextmanager
def _without_script(case: BenchmarkCase) -> Iterator[None]:
    """Inside, new processes do not run the user's script once more, which may lack ``if __name__ == "__main__"``; but
    for a subject whose functions are the script's own.
    """
    script = sys.modules["__main__"]
    place = getattr(script, "__file__", None)
    own = any(getattr(one, "func", one).__module__ == "__main__" for one in (case.ready, case.open))
    if place is None or own or getattr(script, "__spec__", None) is not None:
        yield
        return
    del script.__file__
    try:
        yield
    finally:
        script.__file__ = place


def _start_method() -> str:
    """Processes that share one import of PyTorch, where the system can make such, else fresh ones."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(["torch"])
    return "forkserver"


def _work(pipe: Connection, case: BenchmarkCase) -> None:
    """What the other process does: load, then time each request; batch size 0 requests the peak of memory."""
    try:
        set_threads(case.threads)
        case.ready()
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # the peak of memory starts anew
        before, start = _held_bytes("VmRSS"), time.perf_counter()
        opened = case.open()
        opened.run(_images(1, opened.shape))
        pipe.send(1e3 * (time.perf_counter() - start))
        while True:
            batch, seconds = pipe.recv()
            pipe.send(_timed(opened, batch, seconds) if batch else _above(before))
    except EOFError:  # the other end is gone
        return
    except Exception as error:  # whatever a runtime makes of the net
        pipe.send(str(error) or repr(error))


def _timed(opened: Opened, batch: int, seconds: float) -> list[float]:
    times: list[float] = []
    images = _images(batch, opened.shape)
    end = time.perf_counter() + seconds
    while len(times) < _LEAST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        opened.run(images)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _images(batch: int, shape: tuple[int, ...]) -> np.ndarray:
    """(B, *shape) float32, spread like normalized photos."""
    return np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)


def _above(before: int | None) -> int | None:
    peak = _held_bytes("VmHWM")
    return None if before is None or peak is None else max(peak - before, 0)


def _held_bytes(name: str) -> int | None:
    """The process's memory by Linux's own name for it; None elsewhere."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
