"""How long forwards take on the device at hand: several nets in turns, as what slows the machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from solution.contracts import Example
from solution.copying import copied
from solution.graph.running import call, one_for

WARM_UP, LEAST_ROUNDS, MOST_ROUNDS = 2, 11, 101


def times_ms(nets: Sequence[nn.Module], example: Example, device: str, seconds: float = 3.0) -> np.ndarray:
    """(rounds, nets) milliseconds of one sample through each net, in eval mode: the time by the clock, or on the
    processor what the calling thread had of it, so that programs beside it do not count.

    Every round calls each net once, in an order that rotates. At least `LEAST_ROUNDS` of them after a warm-up,
    at most `MOST_ROUNDS`, and between these as many as `seconds` hold.
    """
    placed = [_placed(net, device) for net in nets]
    inputs = [one_for(net, example) for net in placed]
    modes = [(module, module.training) for net in placed for module in net.modules()]
    rounds: list[list[float]] = []
    end = float("inf")
    try:
        for net in placed:
            net.eval()
        while len(rounds) < WARM_UP + MOST_ROUNDS and (
            len(rounds) < WARM_UP + LEAST_ROUNDS or time.perf_counter() < end
        ):
            if len(rounds) == WARM_UP:
                end = time.perf_counter() + seconds
            times = [0.0] * len(placed)
            for turn in range(len(placed)):
                number = (turn + len(rounds)) % len(placed)
                times[number] = _once_ms(placed[number], inputs[number], device)
            rounds.append(times)
    finally:
        for module, training in modes:
            module.training = training
    return np.array(rounds[WARM_UP:])


def median_latency_ms(net: nn.Module, example: Example, device: str) -> float:
    """Median milliseconds of one sample."""
    return float(np.median(times_ms([net], example, device, seconds=1.0)))


def latency_ratio(net: nn.Module, reference: nn.Module, example: Example, device: str) -> float:
    """How many times as long as `reference` a net takes: the median over rounds in which both are called."""
    times = times_ms([net, reference], example, device)
    return float(np.median(times[:, 0] / times[:, 1]))


def _placed(net: nn.Module, device: str) -> nn.Module:
    """`net` itself where it is on the device, else a copy there."""
    tensor = next(iter([*net.parameters(), *net.buffers()]), None)
    return net if tensor is None or tensor.device.type == torch.device(device).type else copied(net).to(device)


def _once_ms(net: nn.Module, inputs: Example, device: str) -> float:
    on_cuda = torch.device(device).type == "cuda"
    clock = time.thread_time if torch.device(device).type == "cpu" else time.perf_counter
    with torch.inference_mode():
        start = clock()
        call(net, inputs)
        if on_cuda:
            torch.cuda.synchronize()
        return 1e3 * (clock() - start)


def rewarded_multiple(times: np.ndarray, macs: Sequence[float], multiples: Sequence[int], gain: float) -> int:
    """The multiple of channel numbers that the runtime rewards.

    times  (rounds, 1 + multiples) milliseconds of the full net, then of nets cut alike to each multiple, the first of
           which stands for numbers as they come
    macs   of the same nets
    gain   the fraction of time that a multiple must save, against what its MACs let expect, to be worth having
    """
    median = np.median(times, axis=0)
    slope = (median[0] - median[1]) / max(macs[0] - macs[1], 1.0)
    expected = median[1] + slope * (np.array(macs[1:]) - macs[1])
    relative = np.median(times[:, 1:] / times[:, 1:2], axis=0) * median[1] / np.maximum(expected, 1e-9)
    best = int(np.argmin(relative))
    return multiples[best] if relative[best] < 1 - gain else multiples[0]
