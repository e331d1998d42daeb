"""Whether int8 pays: its file and the same net's in fp32, timed in turns on the machine at hand."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from solution.evaluate.cost import in_turns
from solution.formats.exported import Exported

_SECONDS = 1.0
_EQUAL = 0.02
"""Ratios nearer to 1 are noise."""


def medians_ms(*exported: Exported) -> list[float]:
    """Milliseconds of one image in each, one thread: the median of calls in turns."""
    spec = exported[0].metadata
    image = np.random.default_rng(0).standard_normal((1, len(spec.mean), spec.size, spec.size), dtype=np.float32)

    def call_ms(one: Exported) -> float:
        start = time.perf_counter()
        one.run(image)
        return 1e3 * (time.perf_counter() - start)

    times = in_turns([partial(call_ms, one) for one in exported], _SECONDS)
    return [float(median) for median in np.median(times, axis=0)]


def verdict(int8_ms: float, fp32_ms: float) -> str:
    """Whether int8 pays, and by how much."""
    took = f"{int8_ms:.3g} ms an image in int8, {fp32_ms:.3g} in fp32, one thread, in turns"
    if int8_ms > (1 + _EQUAL) * fp32_ms:
        more = f"{100 * (int8_ms / fp32_ms - 1):.0f} % slower"
        return f"int8 does not pay on this machine, but for its bytes: it is {more} than fp32 ({took})"
    if int8_ms < (1 - _EQUAL) * fp32_ms:
        return f"int8 is {fp32_ms / int8_ms:.2f} times as fast as fp32 on this machine ({took})"
    return f"int8 is as fast as fp32 on this machine ({took})"
