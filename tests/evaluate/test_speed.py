"""Measuring in turns; the toy runtimes are functions of this file, so that other processes can find them."""

import functools
import itertools
import time

import numpy as np
import pytest

from solution.contracts import InputError
from solution.evaluate.speed import BenchmarkCase, Opened, Speed, Turns, measure

TURNS = Turns(rounds=2, seconds=0.02, batches=(1, 4))
QUIET = {"log": lambda _: None}


def nothing():
    pass


def opened_after(load_s, image_s, held_bytes=0):
    time.sleep(load_s)
    held = np.ones(held_bytes, dtype=np.uint8)
    return Opened(run=lambda images: time.sleep(image_s * (1 + len(images))) or len(held), shape=(3, 8, 8))


def without_memory():
    raise MemoryError


def fails():
    raise InputError("the file is damaged: copy it again")


def dies():
    raise SystemExit


def toy(name="toy", open_=None, **options):
    open_ = open_ or functools.partial(opened_after, **options)
    return BenchmarkCase(model=name, runtime="sleep", precision="fp32", threads=1, ready=nothing, open=open_)


def test_nets_are_measured_in_turns_that_rotate():
    said = []
    fast, slow = measure(
        [toy("fast", load_s=0, image_s=0.001), toy("slow", load_s=0.2, image_s=0.004, held_bytes=30_000_000)],
        TURNS,
        said.append,
    )
    assert said == [
        "loading fast, sleep fp32, 1 thread(s)",
        "loading slow, sleep fp32, 1 thread(s)",
        "warm-up",
        "round 1 of 2",
        "round 2 of 2",
    ]
    assert (fast.model, slow.model) == ("fast", "slow")
    assert fast.percentile_ms(50) >= 2
    assert slow.percentile_ms(50) >= 8
    assert slow.load_ms >= 208
    assert all(len(times) >= 2 * 3 for speed in (fast, slow) for times in speed.times_ms.values())
    if slow.peak_bytes is not None:
        assert 25e6 < slow.peak_bytes < 80e6
        assert fast.peak_bytes < 20e6


def test_a_round_asks_every_net_before_the_next_begins(tmp_path):
    """The moments of the calls of two nets, written down by their processes, take turns."""
    log = tmp_path / "log"
    measure([toy(name, functools.partial(noting, log, name)) for name in "ab"], Turns(rounds=3, seconds=0.01), **QUIET)
    # Loading ab, warm-up ab, then ba, ab, ba: visits side by side are one here.
    assert "".join(name for name, _ in itertools.groupby(log.read_text())) == "abababa"


def noting(log, name):
    def run(images):
        with log.open("a") as file:
            file.write(name)

    return Opened(run=run, shape=(3, 8, 8))


@pytest.mark.parametrize(
    ("open_", "message"),
    [
        (fails, "toy, sleep fp32, 1 thread.s.: the file is damaged: copy it again"),
        (without_memory, "toy.*MemoryError"),
        (dies, "toy.*its process ended without an answer"),
    ],
)
def test_a_net_that_cannot_be_loaded_is_named(open_, message):
    with pytest.raises(InputError, match=message):
        measure([toy(open_=open_)], TURNS, **QUIET)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, r"rounds must be 1 to 100,000 .*got 0"),
        ({"seconds": 0.0}, "seconds above 0, got 10 and 0.0"),
        ({"batches": (0, 1)}, r"batches must be 1 to 65,536, got \(0, 1\)"),
    ],
)
def test_turns_that_measure_nothing_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Turns(**settings)


def test_figures_follow_from_the_calls():
    times = {1: tuple(float(ms) for ms in range(1, 102)), 64: (128.0, 64.0, 256.0)}
    speed = Speed(model="a", runtime="eager", precision="fp32", threads=1, times_ms=times, load_ms=3.21,
                  peak_bytes=5)  # fmt: skip
    said = speed.figures()
    assert (said["p50_ms"], said["p95_ms"], said["load_ms"], said["peak_bytes"]) == (51, 96, 3.2, 5)
    assert (said["latency_batch"], said["images_per_s"], said["best_batch"]) == (1, 500, 64)
