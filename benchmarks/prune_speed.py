"""Processor time of plan and cut: ours without the proof, ours with it, and Torch-Pruning, in turns in one process.

    OMP_NUM_THREADS=1 python -m benchmarks.prune_speed
    OMP_NUM_THREADS=1 python -m benchmarks.prune_speed --nets resnet50 vit_small_patch16_224 --rounds 3
    OMP_NUM_THREADS=1 python -m benchmarks.prune_speed --budget regnety_004

Half of the channels go at 224 x 224. A round gives each tool a fresh copy of the net, made before its clock starts; the
first round warms up. The peer gets what its own examples do (`benchmarks.zoo`). Processor time of all threads, user and
system, so that other work on the machine hardly counts; the ratio is that of medians over the rounds. About five
minutes.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

NETS = (
    "resnet18", "resnet50", "vgg16_bn", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny",
    "regnet_y_400mf", "resnext50_32x4d", "vit_small_patch16_224",
)  # fmt: skip
RATIO = 0.5


def built(name: str) -> Any:
    """The net of torchvision, or else of timm, randomly initialized from seed 0, in eval mode."""
    import torch
    import torchvision

    from benchmarks import zoo

    torch.manual_seed(0)
    known = torchvision.models.list_models(module=torchvision.models)
    return zoo.built("torchvision" if name in known else "timm", name)[0].eval()


def ours(net: Any, example: Any, verify: bool) -> None:
    """Plan and cut."""
    from solution import PruneChannels
    from solution.contracts import StepContext

    PruneChannels(ratio=RATIO, verify=verify).run(net, StepContext(example=example))


def peers(net: Any, example: Any) -> None:
    """Plan and cut, in place."""
    from benchmarks.zoo import cut_by_torch_pruning

    cut_by_torch_pruning(net, example, RATIO)


TOOLS: dict[str, Callable[[Any, Any], None]] = {
    "ours": lambda net, example: ours(net, example, verify=False),
    "ours with the proof": lambda net, example: ours(net, example, verify=True),
    "torch-pruning": peers,
}


def seconds_of(work: Callable[[Any, Any], None], net: Any, example: Any) -> float:
    """Processor seconds of `work` on a copy of `net`."""
    copied = copy.deepcopy(net)
    start = time.process_time()
    work(copied, example)
    return time.process_time() - start


def measured(name: str, rounds: int, tools: list[str]) -> dict[str, float]:
    """Tool -> median seconds, all tools in turns."""
    import torch

    net, example = built(name), torch.randn(1, 3, 224, 224)
    times: dict[str, list[float]] = {tool: [] for tool in tools}
    for number in range(rounds + 1):
        for tool in tools[number % len(tools) :] + tools[: number % len(tools)]:
            seconds = seconds_of(TOOLS[tool], net, example)
            if number:
                times[tool].append(seconds)
    return {tool: statistics.median(some) for tool, some in times.items()}


def table(found: dict[str, dict[str, float]]) -> str:
    """Seconds of each net by each tool, and how many times the peer's ours are."""
    tools = list(next(iter(found.values())))
    lines = [f"| net | {' | '.join(f'{tool}, s' for tool in tools)} | ours / peer |", "|---" * (len(tools) + 2) + "|"]
    ratios = [of["ours"] / of["torch-pruning"] if "torch-pruning" in of else float("nan") for of in found.values()]
    for (name, of), ratio in zip(found.items(), ratios, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{of[tool]:.2f}' for tool in tools)} | {ratio:.2f} |")
    return "\n".join([*lines, f"| median |{' |' * len(tools)} {statistics.median(ratios):.2f} |"])


def budget_seconds(name: str) -> tuple[float, float]:
    """Processor seconds of a plan and cut to half of the MACs without the proof, and the share that is left."""
    import torch

    from solution import PruneChannels
    from solution.contracts import StepContext
    from solution.evaluate.cost import macs

    net, context = built(name), StepContext(example=torch.randn(1, 3, 224, 224))
    start = time.process_time()
    cut = PruneChannels(macs="50%", verify=False).run(net, context)
    return time.process_time() - start, macs(cut, context.example) / macs(net, context.example)


def main() -> None:
    """Measure what the shell asks for, and print the table."""
    parser = argparse.ArgumentParser(description="Processor time of channel pruning, against a peer.")
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--budget", help="time one budget of MACs on this net instead")
    settings = parser.parse_args()
    warnings.simplefilter("ignore")
    if settings.budget:
        seconds, left = budget_seconds(settings.budget)
        print(f'{settings.budget}: macs="50%" took {seconds:.2f} s, {left:.4f} of the MACs are left')
        return
    found = {}
    for name in settings.nets:
        found[name] = measured(name, settings.rounds, settings.tools)
        print(name, {tool: round(seconds, 2) for tool, seconds in found[name].items()}, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
