"""ResNet-56 on CIFAR-10 pictures, 2.57x fewer MACs: ours, Torch-Pruning's group norm, and a net from scratch.

    python -m benchmarks.prune_accuracy ../shared/data/cifar10_jpeg.tar.gz ../shared/data/weights/resnet56-4bfd9763.th

The published weights are fine-tuned on this copy of the pictures first, once. Every net is then trained alike: the same
epochs, schedule and views, cut nets at each of `--lrs`. Every outcome is a line of `--out`/rows.jsonl, and a second run
goes on after the last one, mid-training too; two runs with different `--seeds` may share a folder once its
`base.safetensors` is there.

An arm that ends in `+kd` is distilled from the base while it is fine-tuned (live, Hinton's loss), for one who prunes
with a good net at hand: cuts of both tools may be taught so.

Torch-Pruning's result does not run on this net as it is (it loses track of the zero-padded shortcuts), so its cut is
kept to the channels inside the blocks, where it works.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from solution import PruneChannels
from solution.contracts import InputError, StepContext
from solution.data.loaders import Data, Loaders
from solution.data.views import Augment
from solution.evaluate.classify import classify
from solution.evaluate.cost import macs, params
from solution.models.cifar_resnet import CifarResNet
from solution.runtime import hardware, seed_everything, set_threads, written_whole
from solution.train.distillation import Distill
from solution.train.step import Train

SIZE, BATCH, DEPTH = 32, 128, 56


@dataclass(frozen=True, kw_only=True)
class Job:
    """One net: how it is made, how much smaller, with which learning rate it is trained, its seed."""

    arm: str
    speedup: float
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """As a folder."""
        return f"{self.arm}_{self.speedup:g}x_lr{self.lr:g}_seed{self.seed}"


def published(path: Path, num_classes: int) -> nn.Module:
    """ResNet-56 with the published weights. `InputError` when the file holds others."""
    net = CifarResNet(depth=DEPTH).build(num_classes)
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    wrong = net.load_state_dict({key.removeprefix("module."): value for key, value in state.items()}, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise InputError(f"{path} is no ResNet-{DEPTH}: {wrong}")
    return net


def by_ours(base: nn.Module, context: StepContext, speedup: float) -> nn.Module:
    """Our channel pruning down to the budget: what the loss would miss least per multiply-accumulate goes.

    The residual stream stays, at most nine tenths of a layer go, readers are fitted to what is left.
    """
    step = PruneChannels(
        macs=f"{100 / speedup}%",
        ranking="per_cost",
        importance="taylor",
        limits={"*": 0.9},
        protect=("conv1", "*.conv2"),
        reconstruct=True,
    )
    return step(base, context)


def by_torch_pruning(base: nn.Module, context: StepContext, speedup: float) -> nn.Module:
    """Group norm, global ranking, in small steps until the budget is met; channels inside the blocks alone."""
    import torch_pruning

    net, limit = copy.deepcopy(base), macs(base, context.example) / speedup
    inside = {module.conv1 for module in net.modules() if hasattr(module, "conv2")}
    weighted = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    pruner = torch_pruning.pruner.GroupNormPruner(
        net,
        context.example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        iterative_steps=200,
        pruning_ratio=0.95,
        max_pruning_ratio=0.9,
        ignored_layers=[module for module in weighted if module not in inside],
    )
    while macs(net, context.example) > limit:
        pruner.step()
    return net


def from_scratch(base: nn.Module, context: StepContext, speedup: float) -> nn.Module:
    """A narrower ResNet-56 of at most the same MACs, freshly initialized."""
    limit, num_classes = macs(base, context.example) / speedup, base.linear.out_features
    widths = [share / 64 for share in range(64, 0, -1)]
    nets = (CifarResNet(depth=DEPTH, width=width).build(num_classes) for width in widths)
    return next(net for net in nets if macs(net, context.example) <= limit)


TAUGHT = "+kd"
ARMS: dict[str, Callable[[nn.Module, StepContext, float], nn.Module]] = {
    "ours": by_ours,
    "torch-pruning": by_torch_pruning,
    "scratch": from_scratch,
    f"ours{TAUGHT}": by_ours,
    f"torch-pruning{TAUGHT}": by_torch_pruning,
}


def opened(path: Path, seed: int) -> Loaders:
    """The pictures, mildly varied."""
    augment = Augment(crop_scale=(0.7, 1.0), quarter_turn=0.0, color=0.0)
    return Data(path=str(path), size=SIZE, batch_size=BATCH, augment=augment, calibration_images=2048).open(seed=seed)


def given_for(loaders: Loaders, seed: int, folder: Path) -> StepContext:
    """What a training in `folder` is handed."""
    return StepContext(
        example=torch.zeros(1, 3, SIZE, SIZE),
        train=loaders.train,
        dev=loaders.dev,
        calibration=loaders.calibration,
        seed=seed,
        folder=folder,
        resume=True,
    )


def trained(
    net: nn.Module, epochs: int, lr: float, context: StepContext, teacher: nn.Module | None = None
) -> nn.Module:
    """Fine-tuned, the last epoch kept; distilled from `teacher` when there is one."""
    craft = {"epochs": epochs, "lr": lr, "weight_decay": 5e-4, "warmup_epochs": 0.2, "keep": "last"}
    if teacher is None:
        return Train(**craft)(net, context)
    mean, std = context.train.dataset.normalization
    sees = SimpleNamespace(size=SIZE, mean=mean, std=std, classes=context.classes)
    context = dataclasses.replace(context, load=lambda _: (copy.deepcopy(teacher).eval(), sees))
    return Distill(**craft, teachers=("base",), live=True)(net, context)


def accuracy(net: nn.Module, loaders: Loaders) -> float:
    """Percent of the val split that is classified rightly."""
    return 100 * classify(_predictor(net), loaders.val).accuracy


def _predictor(net: nn.Module) -> Callable[[Tensor], Tensor]:
    net = net.eval()

    def predict(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(images)

    return predict


def fine_tuned_base(settings: argparse.Namespace) -> nn.Module:
    """The published net after `--base-epochs` on these pictures; from the folder when it is there."""
    from safetensors.torch import load_file, save_file

    path = settings.out / "base.safetensors"
    loaders = opened(settings.data, 0)
    net = published(settings.weights, len(loaders.info.classes))
    if path.exists():
        net.load_state_dict(load_file(path))
        return net
    before = accuracy(net, loaders)
    net = trained(net, settings.base_epochs, settings.base_lr, given_for(loaders, 0, settings.out / "base"))
    print(f"base: {before:.2f} % as published, {accuracy(net, loaders):.2f} % after {settings.base_epochs} epochs")
    with written_whole(path) as temporary:
        save_file(net.state_dict(), temporary)
    return net


def outcome_of(job: Job, base: nn.Module, settings: argparse.Namespace) -> dict[str, Any]:
    """Make the net of `job`, train it, judge it."""
    start = time.perf_counter()
    loaders = opened(settings.data, job.seed)
    context = given_for(loaders, job.seed, settings.out / job.name)
    seed_everything(job.seed)
    net = ARMS[job.arm](base, context, job.speedup)
    found = {"macs": macs(net, context.example), "params": params(net), "before_training": accuracy(net, loaders)}
    net = trained(net, settings.epochs, job.lr, context, base if job.arm.endswith(TAUGHT) else None)
    minutes = (time.perf_counter() - start) / 60
    return {**vars(job), **found, "accuracy": accuracy(net, loaders), "minutes": minutes, "epochs": settings.epochs}


def table(rows: list[dict[str, Any]], base: dict[str, float]) -> str:
    """Mean and spread of each arm at each learning rate."""
    lines = [
        "| net | learning rate | MACs, M | fewer | parameters | before training, % | accuracy, % | spread | seeds |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    cost = f"{base['macs'] / 1e6:.1f} | 1.00x | {base['params']:,}"
    lines += [f"| base | - | {cost} | - | {base['accuracy']:.2f} | - | - |"]
    for speedup, arm, lr in sorted({(row["speedup"], row["arm"], row["lr"]) for row in rows}):
        of_arm = [row for row in rows if (row["speedup"], row["arm"], row["lr"]) == (speedup, arm, lr)]
        reached = [row["accuracy"] for row in of_arm]
        mean = {name: statistics.mean(row[name] for row in of_arm) for name in ("macs", "params", "before_training")}
        spread = f"{statistics.stdev(reached):.2f}" if len(reached) > 1 else "-"
        lines.append(
            f"| {arm} | {lr:g} | {mean['macs'] / 1e6:.1f} | {base['macs'] / mean['macs']:.2f}x | {mean['params']:,.0f} "
            f"| {mean['before_training']:.2f} | {statistics.mean(reached):.2f} | {spread} | {len(reached)} |"
        )
    return "\n".join(lines)


def jobs(settings: argparse.Namespace) -> Iterator[Job]:
    """Every net that is asked for; one from scratch has a learning rate of its own."""
    for speedup, seed, arm in itertools.product(settings.speedups, settings.seeds, settings.arms):
        for lr in [settings.scratch_lr] if arm == "scratch" else settings.lrs:
            yield Job(arm=arm, speedup=speedup, lr=lr, seed=seed)


def arguments() -> argparse.Namespace:
    """What the shell asks for."""
    parser = argparse.ArgumentParser(description="Accuracy of a pruned ResNet-56 against a peer's and a fresh net's.")
    parser.add_argument("data", type=Path, help="CIFAR-10 pictures in class folders")
    parser.add_argument("weights", type=Path, help="published ResNet-56 weights")
    parser.add_argument("--speedups", type=float, nargs="+", default=[2.57])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=tuple(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base-epochs", type=int, default=2)
    parser.add_argument("--base-lr", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=2, help="of every net after it was made")
    parser.add_argument("--lrs", type=float, nargs="+", default=[0.06], help="of cut nets, one after another")
    parser.add_argument("--scratch-lr", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path("runs/prune_accuracy"))
    return parser.parse_args()


def main() -> None:
    """Train what the folder does not hold yet, then print the table."""
    settings = arguments()
    set_threads()
    settings.out.mkdir(parents=True, exist_ok=True)
    base = fine_tuned_base(settings)
    log = settings.out / "rows.jsonl"
    for job in jobs(settings):
        if any(vars(job).items() <= row.items() for row in _logged(log)):
            continue
        outcome = outcome_of(job, base, settings)
        with log.open("a") as lines:
            lines.write(json.dumps(outcome) + "\n")
        print(f"{job.name}: {outcome['accuracy']:.2f} % in {outcome['minutes']:.0f} min", flush=True)
    example, loaders = torch.zeros(1, 3, SIZE, SIZE), opened(settings.data, 0)
    figures = {"macs": macs(base, example), "params": params(base), "accuracy": accuracy(base, loaders)}
    print(f"\n{settings.data.name}, {settings.epochs} epochs, {hardware()}\n{table(_logged(log), figures)}")


def _logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
