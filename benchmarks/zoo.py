"""Channel pruning of many nets with random weights: ours and Torch-Pruning in turns, each net in a fresh process.

    python -m benchmarks.zoo torchvision pytorchcv-shufflenets timm --log zoo.jsonl
    python -m benchmarks.zoo torchvision --only resnet50 vit_b_16 --size 96 --log zoo.jsonl

A net passes when a forward of the cut net works, its MACs fell by at least half of what was asked and, for ours, the
cut net equals the full one whose cut channels nobody reads, to 1e-10 in float64 (1e-5 where a forward itself rounds to
float32). Every outcome is a line of the log; a second run goes on after the last. Seconds are those of plan and cut,
in CPU time of one thread, once a tiny net was cut to have everything loaded; peak memory is the process's, before the
check of equality. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TOOLS = ("ours", "torch-pruning")
SAMPLE, SAMPLE_SEED = 150, 0
NUM_CLASSES = 1000
GIB = 1 << 30

Outcome = dict[str, Any]
"""One line of the log."""


def torchvision_names() -> list[str]:
    """Torchvision's whole classification list."""
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def shufflenet_names() -> list[str]:
    """Every ShuffleNet of pytorchcv."""
    from pytorchcv import model_provider

    return sorted(name for name in model_provider._models if name.startswith("shufflenet"))


def timm_names() -> list[str]:
    """A fixed sample of timm's nets."""
    import random

    import timm

    return sorted(random.Random(SAMPLE_SEED).sample(sorted(timm.list_models()), SAMPLE))


LISTS: dict[str, Callable[[], list[str]]] = {
    "torchvision": torchvision_names,
    "pytorchcv-shufflenets": shufflenet_names,
    "timm": timm_names,
}


def built(source: str, name: str) -> tuple[Any, int]:
    """The net, randomly initialized, and the side of the images that it was made for."""
    if source == "torchvision":
        import torchvision

        settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        net = torchvision.models.get_model(name, weights=None, **settings)
        return net, getattr(net, "image_size", 299 if name == "inception_v3" else 224)
    if source == "timm":
        import timm

        net = timm.create_model(name, pretrained=False)
        return net, net.default_cfg.get("input_size", (3, 224, 224))[-1]
    from pytorchcv.model_provider import get_model

    return get_model(name), 224


def cut_by_ours(net: Any, example: Any, ratio: float) -> tuple[Any, Any]:
    """The cut net and its plan."""
    from solution import PruneChannels
    from solution.contracts import StepContext

    plan = PruneChannels(ratio=ratio).plan(net, StepContext(example=example))
    return plan.apply(net), plan


def cut_by_torch_pruning(net: Any, example: Any, ratio: float) -> tuple[Any, Any]:
    """The net, cut in place: group magnitude, the classifier ignored, with all that the peer's own examples do.

    prune_timm_models.py and prune_timm_vit.py: the joint projection of an attention is given its number of heads, and
    the module its sizes after the cut. torchvision_pruning.py: a ViT's channels are a multiple of its heads, and
    `hidden_dim` is set after the cut. `attn_dim` is where today's timm keeps what that example's forward computes.
    """
    import torch_pruning
    from torch import nn

    weighted = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    classifiers = [m for m in weighted if NUM_CLASSES in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))]
    joint = {m: getattr(m, "qkv", getattr(m, "qkv_proj", None)) for m in net.modules() if hasattr(m, "num_heads")}
    joint = {module: linear for module, linear in joint.items() if isinstance(linear, nn.Linear)}
    torchvision_vit = hasattr(net, "conv_proj") and hasattr(net, "hidden_dim")
    pruner = torch_pruning.pruner.BasePruner(
        net,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=classifiers,
        num_heads={linear: module.num_heads for module, linear in joint.items()},
        round_to=net.encoder.layers[0].num_heads if torchvision_vit else None,
    )
    pruner.step()
    for module, linear in joint.items():
        module.num_heads = pruner.num_heads[linear]
        module.head_dim = linear.out_features // (3 * module.num_heads)
        if hasattr(module, "attn_dim"):
            module.attn_dim = module.num_heads * module.head_dim
    if torchvision_vit:
        net.hidden_dim = net.conv_proj.out_channels
    return net, None


CUTTERS = {"ours": cut_by_ours, "torch-pruning": cut_by_torch_pruning}


def outcome_of(source: str, name: str, tool: str, settings: argparse.Namespace) -> Outcome:
    """Cut one net and judge it, in this process."""
    import torch

    from solution.compress.coupling.equality import randomize
    from solution.evaluate.cost import macs_dispatched
    from solution.runtime import seed_everything, set_threads

    set_threads()
    seed_everything(0)
    CUTTERS[tool](torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 1) for _ in range(3)]), torch.zeros(1, 3, 8, 8), 0.4)
    net, own_size = built(source, name)
    net = randomize(net.eval())
    example = torch.randn(1, 3, *[settings.size or own_size] * 2)
    found: Outcome = {"weights_bytes": sum(p.numel() * p.element_size() for p in net.parameters())}
    found["macs_before"] = macs_dispatched(net, example)
    start = time.process_time()
    cut, plan = CUTTERS[tool](net, example, settings.ratio)
    found["seconds"] = round(time.process_time() - start, 2)
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["macs_after"] = macs_dispatched(cut, example)
    del cut  # the check of equality makes its own, and giants need the room
    return {**found, **verdict(found, net, plan, example, settings)}


def verdict(found: Outcome, net: Any, plan: Any, example: Any, settings: argparse.Namespace) -> Outcome:
    """Whether the cut passes, and why not."""
    left = found["macs_after"] / found["macs_before"]
    if left > 1 - settings.ratio / 2:
        return {"passed": False, "reason": f"only {1 - left:.0%} of the MACs went"}
    if plan is None or not settings.equality:
        return {"passed": True, "reason": ""}
    from solution.compress.coupling.analysis import TraceRequest, analyze
    from solution.compress.coupling.equality import compare

    difference = compare(net, plan, analyze(TraceRequest(model=net, example=example)), example, in_place=True)
    equal = difference.equal
    reason = "" if equal else f"not equal: error {difference.error:.1e}, output moved {difference.moved:.1e}"
    return {"passed": equal, "reason": reason, "error": difference.error, "moved": difference.moved}


def judged(source: str, name: str, tool: str, settings: argparse.Namespace) -> Outcome:
    """`outcome_of` in a process of its own, with limits on time and memory."""
    options = ["--size", settings.size, "--ratio", settings.ratio]
    options += ["--memory-gib", settings.memory_gib, "--limit-s", settings.limit_s]
    options += [] if settings.equality else ["--no-equality"]
    command = [sys.executable, "-m", "benchmarks.zoo", source, "--one", name, tool, *map(str, options)]
    about = {"list": source, "name": name, "tool": tool, "size": settings.size, "ratio": settings.ratio}
    about["memory_gib"] = settings.memory_gib
    helped = {"TIMM_FUSED_ATTN": "0"} if tool == "torch-pruning" else {}  # as its examples set it
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **helped})
    lines = done.stdout.splitlines()
    if done.returncode == -signal.SIGXCPU:
        return {**about, "passed": False, "reason": f"over {settings.limit_s} s of CPU time"}
    if done.returncode or not lines:
        return {**about, "passed": False, "reason": f"the process ended with {done.returncode}: {_last(done.stderr)}"}
    return {**about, **json.loads(lines[-1])}


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "no message"


def child(source: str, name: str, tool: str, settings: argparse.Namespace) -> None:
    """Print the outcome as one line of JSON."""
    most = int(settings.memory_gib * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (settings.limit_s, settings.limit_s + 5))
    try:
        outcome = outcome_of(source, name, tool, settings)
    except Exception as error:
        outcome = {"passed": False, "reason": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    print(json.dumps(outcome))


def key_of(outcome: Outcome) -> tuple[Any, ...]:
    """What makes two lines of the log the same run."""
    return tuple(outcome[part] for part in ("list", "name", "tool", "size", "ratio"))


def logged(path: Path) -> dict[tuple[Any, ...], Outcome]:
    """The log so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {key_of(outcome): outcome for outcome in map(json.loads, lines)}


def tables(outcomes: Iterable[Outcome]) -> str:
    """Passes, seconds and memory of each list and tool, then the reason of each failure."""
    outcomes = list(outcomes)
    lines = ["| list | tool | passes | median s | most memory beyond 2.5 x weights, GiB |", "|---|---|---|---|---|"]
    for source, tool in sorted({(one["list"], one["tool"]) for one in outcomes}):
        of_both = [one for one in outcomes if (one["list"], one["tool"]) == (source, tool)]
        timed = [one for one in of_both if "seconds" in one]
        seconds = f"{statistics.median(one['seconds'] for one in timed):.1f}" if timed else "-"
        over = max(((one["peak_bytes"] - 2.5 * one["weights_bytes"]) / GIB for one in timed), default=0.0)
        passes = sum(one["passed"] for one in of_both)
        lines.append(f"| {source} | {tool} | {passes} of {len(of_both)} | {seconds} | {over:.2f} |")
    failures = [one for one in outcomes if not one["passed"]]
    lines += ["", "| failure | tool | reason |", "|---|---|---|"] if failures else []
    return "\n".join(lines + [f"| {one['name']} | {one['tool']} | {one['reason']} |" for one in failures])


def arguments() -> argparse.Namespace:
    """What the shell asks for."""
    parser = argparse.ArgumentParser(description="Channel pruning over whole collections of nets.")
    parser.add_argument("lists", nargs="+", choices=LISTS)
    parser.add_argument("--only", nargs="*", default=[], help="these nets of the lists")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of channels that go")
    parser.add_argument("--size", type=int, default=0, help="side of the images; 0: the one each net was made for")
    parser.add_argument("--limit-s", type=int, default=600, help="seconds of CPU time for one net")
    parser.add_argument("--memory-gib", type=float, default=14, help="memory for one net")
    parser.add_argument("--no-equality", dest="equality", action="store_false", help="leave that check out")
    parser.add_argument("--log", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--one", nargs=2, metavar=("NAME", "TOOL"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run what the log does not hold yet, then print the tables."""
    settings = arguments()
    if settings.one:
        child(settings.lists[0], *settings.one, settings)
        return
    done = logged(settings.log)
    wanted = [(source, name) for source in settings.lists for name in LISTS[source]()]
    wanted = [(source, name) for source, name in wanted if not settings.only or name in settings.only]
    for source, name in wanted:
        for tool in settings.tools:
            if (source, name, tool, settings.size, settings.ratio) not in done:
                outcome = judged(source, name, tool, settings)
                with settings.log.open("a") as log:
                    log.write(json.dumps(outcome) + "\n")
                done[key_of(outcome)] = outcome
                print(source, name, tool, "passed" if outcome["passed"] else outcome["reason"], flush=True)
    print(tables(outcome for outcome in done.values() if (outcome["list"], outcome["name"]) in wanted))


if __name__ == "__main__":
    main()
