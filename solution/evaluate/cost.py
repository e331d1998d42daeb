"""What a net costs: MACs of one image in two counts, processor time, parameters, sparsity, bytes on disk;
and how long forwards take here, several nets in turns.

The first count is the competition's convention: ptflops' module hooks, called one module call at a time. ptflops 0.7.5
adds up what its hook counts for every module whose class it knows, and nothing else (``backend="pytorch"``,
``count_functional`` off). Its own loop keeps the sums on the modules, where a forward could change them, counts a
module twice that hangs in two places, and overlooks parametrized modules, whose class `torch.nn.utils.parametrize`
replaces. Here its hooks are called at each module call, and the sums are kept outside. The second is the dispatcher's.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.utils import parametrize

from solution.contracts import Example, InputError
from solution.copying import copied
from solution.evaluate.operations import Dispatched
from solution.graph import as_judged, call, one_for, run

_SUM = "__flops__"


def counted_class(module: nn.Module) -> type[nn.Module]:
    """The class by which ptflops knows the module: its own, or the one it had before it was parametrized."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def hookable_modules(model: nn.Module) -> list[nn.Module]:
    """Every module that can take hooks: scripted ones, and what lies inside them, cannot."""
    if isinstance(model, ScriptModule):
        return []
    found = {model: None}
    for child in model.children():
        found.update(dict.fromkeys(hookable_modules(child)))
    return list(found)


def counted_modules(model: nn.Module) -> set[nn.Module]:
    """The modules that enter the sum. As in ptflops, what lies inside a counted module does not."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    counted: set[nn.Module] = set()

    def walk(module: nn.Module) -> None:
        if counted_class(module) in MODULES_MAPPING:
            counted.add(module)
        else:
            for child in module.children():
                walk(child)

    walk(model)
    return counted


def call_macs(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    """What ptflops counts for one call of `module`, 0 when its hook does not understand the call."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    kept = module.__dict__.get(_SUM)
    module.__dict__[_SUM] = 0
    try:
        MODULES_MAPPING[counted_class(module)](module, inputs, output)
        return int(module.__dict__[_SUM])
    except (AssertionError, AttributeError, IndexError, TypeError, ValueError):
        return 0
    finally:
        module.__dict__.pop(_SUM)
        if kept is not None:
            module.__dict__[_SUM] = kept


Entered = Callable[[nn.Module], object]
Left = Callable[[nn.Module, int], object]


@contextlib.contextmanager
def watched(model: nn.Module, entered: Entered, left: Left) -> Iterator[None]:
    """While inside, call `entered` and `left` around each call of a module, the latter with the MACs counted for it."""
    counted = counted_modules(model)

    def before(module: nn.Module, _: tuple[Any, ...]) -> None:
        entered(module)

    def after(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        tensors = (*inputs, *(value for value in named.values() if isinstance(value, Tensor)))
        left(module, call_macs(module, tensors, output) if module in counted and output is not None else 0)

    handles = []
    try:
        for module in hookable_modules(model):
            handles.append(module.register_forward_pre_hook(before, prepend=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


_WARM_UP = 3


def macs(model: nn.Module, example: Example) -> int:
    """Multiply-accumulates of one image in the competition's convention: ptflops 0.7.5, module hooks only.

    example: (B, C, H, W); its first image is run. Convolution + 2 x BatchNorm elements + pooling inputs + linear
    layers count; what no module hook sees (functional ReLU, shuffle, add) is free. A shared module counts as often
    as it runs; a parametrized one counts as its original class. `InputError` when the net does not take the image.
    """
    calls: list[int] = []
    with as_judged(model), watched(model, lambda module: None, lambda module, counted: calls.append(counted)):
        run(model, one_for(model, example))
    return sum(calls)


def macs_dispatched(model: nn.Module, example: Example) -> int:
    """Multiply-accumulates of one image at the dispatcher: every product of weights or matrices that really ran.

    Recurrent layers, attention kernels, Fourier transforms, and sparse products by their stored elements count too;
    element-wise work does not. Warns once with the names of operations whose products nobody can count.
    """
    counter = Dispatched()
    with as_judged(model), counter:
        run(model, one_for(model, example))
    return counter.macs


def processor_ms(model: nn.Module, example: Example, calls: int = 20) -> float:
    """Processor time of one image in milliseconds: of all threads, user and system, the median of `calls` forwards.

    Unlike a latency it hardly changes when other work holds the processor.
    """
    image, times = one_for(model, example), []
    with as_judged(model):
        for _ in range(calls + _WARM_UP):
            start = time.process_time()
            run(model, image)
            times.append(1e3 * (time.process_time() - start))
    return statistics.median(times[_WARM_UP:])


def params(model: nn.Module) -> int:
    """The number of weights and biases that the net computes with, trainable or frozen; a shared one counts once.

    A tensor that is made from others (quantized, clustered, masked) counts its own elements, whatever it is stored as:
    codes and codebooks decide how many bytes it takes, not how many weights it has. Running statistics are no weights.
    """
    return sum(weight.numel() for weight in _weights(model))


def sparsity(model: nn.Module) -> float:
    """Percent of exact zeros among the weights of two or more dimensions, as they are used: masked, quantized."""
    weights = [weight for weight in _weights(model) if weight.dim() >= 2]
    count = sum(weight.numel() for weight in weights)
    nonzero = sum(int(torch.count_nonzero(weight)) for weight in weights)
    return 100.0 * (count - nonzero) / count if count else 0.0


@torch.no_grad()
def _weights(model: nn.Module) -> Iterator[Tensor]:
    """Every weight and bias as it is used."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        if "parametrizations" in path.split("."):
            continue
        if parametrize.is_parametrized(module):
            yield from (getattr(module, name) for name in module.parametrizations)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield getattr(module, name.removesuffix("_orig"), parameter)


def file_bytes(path: Path) -> int:
    """The size of a file, or of all files of a folder. `InputError` when there is nothing."""
    path = Path(path)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if not path.is_file():
        raise InputError(f"no file to measure at {path}")
    return path.stat().st_size


WARM_UP, LEAST_ROUNDS, MOST_ROUNDS = 2, 11, 101


def in_turns(calls: Sequence[Callable[[], float]], seconds: float) -> np.ndarray:
    """(rounds, calls): what each call returned, such as the milliseconds that it took.

    Every round makes each call once, in an order that rotates. At least `LEAST_ROUNDS` of them after a warm-up,
    at most `MOST_ROUNDS`, and between these as many as `seconds` hold.
    """
    rounds: list[list[float]] = []
    end = float("inf")
    while len(rounds) < WARM_UP + MOST_ROUNDS and (len(rounds) < WARM_UP + LEAST_ROUNDS or time.perf_counter() < end):
        if len(rounds) == WARM_UP:
            end = time.perf_counter() + seconds
        times = [0.0] * len(calls)
        for turn in range(len(calls)):
            number = (turn + len(rounds)) % len(calls)
            times[number] = calls[number]()
        rounds.append(times)
    return np.array(rounds[WARM_UP:])


def times_ms(nets: Sequence[nn.Module], example: Example, device: str, seconds: float = 3.0) -> np.ndarray:
    """(rounds, nets) milliseconds of one sample through each net, in turns, in eval mode: the time by the clock, or on
    the processor what the calling thread had of it, so that programs beside it do not count.
    """
    placed = [_placed(net, device) for net in nets]
    modes = [(module, module.training) for net in placed for module in net.modules()]
    try:
        return in_turns([partial(_once_ms, net.eval(), one_for(net, example), device) for net in placed], seconds)
    finally:
        for module, training in modes:
            module.training = training


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
