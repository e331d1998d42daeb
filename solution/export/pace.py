"""Whether int8 pays: its file and the same net's in fp32, timed in turns on the machine at hand."""

from __future__ import annotations

import time

import numpy as np

from solution.formats.exported import Exported

_SECONDS, _LEAST_ROUNDS = 1.0, 15
_EQUAL = 0.02
"""Ratios nearer to 1 are noise."""


def in_turns(one: Exported, other: Exported) -> tuple[float, float]:
    """Milliseconds of one image in both, one thread: the medians of calls in turns, either first as often."""
    spec = one.metadata
    rounds: list[list[float]] = []
    image = np.random.default_rng(0).standard_normal((1, len(spec.mean), spec.size, spec.size), dtype=np.float32)
    for exported in (one, other):
        exported.run(image)
    end = time.perf_counter() + _SECONDS
    while len(rounds) < _LEAST_ROUNDS or time.perf_counter() < end:
        times = [0.0, 0.0]
        for number in (0, 1) if len(rounds) % 2 else (1, 0):
            start = time.perf_counter()
            (one, other)[number].run(image)
            times[number] = 1e3 * (time.perf_counter() - start)
        rounds.append(times)
    first, second = np.median(np.array(rounds), axis=0)
    return float(first), float(second)


def verdict(int8_ms: float, fp32_ms: float) -> str:
    """Whether int8 pays, and by how much."""
    took = f"{int8_ms:.3g} ms an image in int8, {fp32_ms:.3g} in fp32, one thread, in turns"
    if int8_ms > (1 + _EQUAL) * fp32_ms:
        more = f"{100 * (int8_ms / fp32_ms - 1):.0f} % slower"
        return f"int8 does not pay on this machine, but for its bytes: it is {more} than fp32 ({took})"
    if int8_ms < (1 - _EQUAL) * fp32_ms:
        return f"int8 is {fp32_ms / int8_ms:.2f} times as fast as fp32 on this machine ({took})"
    return f"int8 is as fast as fp32 on this machine ({took})"
