"""One trial: what its net will cost, then the stages that lead to After, each resumed where it stopped, judged on dev.

A trial that could not win even if it learnt everything is refused before it trains. The val split is never opened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution import checkpoint
from solution.budget import Budget
from solution.contracts import InputError, Recipe, Stage, StepContext
from solution.data.loaders import Loaders
from solution.data.views import EpochSampler, train_loader
from solution.evaluate.audit import audit
from solution.evaluate.cost import macs
from solution.evaluate.ram import memory
from solution.evaluate.score import Scorer
from solution.models.weights import built
from solution.pipeline import StageRun, opener, stage_runs, stages_to
from solution.run_folder import HISTORY, RunFolder, read_history
from solution.search.space import applied
from solution.search.study import Figures, TrialRejected
from solution.search.worker import TrialContext
from solution.tasks import judge, score

UNBUILDABLE = 1.0
"""How bad a net that cannot be built is to the sampler: as if it had the competition's reference MACs too many."""


def epochs_of(stage: Stage) -> int:
    """Epochs that a stage trains; 0 for one that does not."""
    return getattr(stage.step, "epochs", 0)


def total_epochs(recipe: Recipe) -> int:
    """Epochs on the way to After."""
    return sum(map(epochs_of, stages_to(recipe, recipe.after)))


def foreseen_macs(recipe: Recipe, num_classes: int) -> int:
    """MACs of After, from a net that has learnt nothing. `InputError` as in `foreseen`."""
    return macs(*foreseen(recipe, num_classes))


def foreseen(recipe: Recipe, num_classes: int) -> tuple[nn.Module, torch.Tensor]:
    """After as a net that has learnt nothing, and images (2, 3, S, S) for it.

    `InputError` when it cannot be built, or when the audit would not trust its count of MACs.
    """
    side = recipe.size_of(recipe.after)
    example = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    net = _untrained(recipe, num_classes, example)
    verdict = audit(net, example)
    if not verdict.ok:
        raise InputError(f"the audit does not trust the count of MACs; {verdict}")
    return net, example


def _untrained(recipe: Recipe, num_classes: int, example: torch.Tensor) -> nn.Module:
    batches = [(example, torch.zeros(len(example), dtype=torch.int64))]
    context = StepContext(example=example, dev=batches, calibration=batches, log=lambda _: None)
    stages = stages_to(recipe, recipe.after)
    net = built(stages[0].model or recipe.model, num_classes).eval()
    for stage in stages:
        net = stage.step.cost_only(net, context).eval()
    return net


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is not worth training.

    macs  the most that After may have
    hope  the highest macro F1 that is thought possible; 1 refuses only what cannot win
    ram   the most memory that one image may take on a microcontroller (`evaluate.ram`), such as "64 KiB"; None: any
    """

    macs: int = Scorer().reference_macs
    hope: float = 1.0
    ram: str | None = None

    def __post_init__(self) -> None:
        if self.ram is not None:
            Budget.of(self.ram, "bytes", "ram")
            if self.ram.endswith("%"):
                raise InputError(f'the limit of memory is a number of bytes, such as "64 KiB", got {self.ram}')
        if self.macs < 1:
            raise InputError(f"the limit of MACs must be at least 1, got {self.macs}")
        if not 0 < self.hope <= 1:
            raise InputError(f"the hoped-for macro F1 must lie in (0, 1], got {self.hope}")

    def check_ram(self, net: nn.Module, example: torch.Tensor) -> None:
        """Raise `TrialRejected` for a net that needs more memory than a microcontroller may give."""
        if self.ram is None:
            return
        needed = memory(net, example).arena
        limit = Budget.of(self.ram, "bytes", "ram").limit(needed)
        if needed > limit:
            raise TrialRejected(f"{needed:,} bytes of memory, more than {self.ram}", needed / limit - 1)

    def check(self, macs: int, done: Iterable[Figures], objective: str) -> None:
        """Raise `Refused` for a net of `macs` that is too big or that cannot beat those `done`, whatever it learns."""
        scorer = Scorer()
        if macs > self.macs:
            excess = (macs - self.macs) / scorer.reference_macs
            raise TrialRejected(f"{macs:,} MACs, more than the limit of {self.macs:,}", excess)
        bound = Figures(macs=macs, f1=self.hope, score=scorer(macs, self.hope))
        for other in done:
            worse = [a - b for a, b in zip(bound.minimized(objective), other.minimized(objective), strict=True)]
            if min(worse) >= 0:
                raise TrialRejected(
                    f"{macs:,} MACs: even macro F1 {self.hope:g} would make score {bound.score:.4f}, no better than "
                    f"macro F1 {other.f1:.4f} at {other.macs:,} MACs (score {other.score:.4f})",
                    max(bound.score - other.score, 1e-6),
                )


SPLITS = ("train", "dev", "calibration")


class Watched(EpochSampler):
    """The batches of `inner`; `look` is called before each epoch, when all earlier ones are on the disk."""

    def __init__(self, inner: EpochSampler, look: Callable[[], None]) -> None:
        self.__dict__.update(inner.__dict__)
        self._look = look

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is. What `look` raises ends the training."""
        super().set_epoch(epoch)
        self._look()


@dataclass(kw_only=True)
class Follower:
    """Follows the trainings of a trial by their histories and stands before its rungs.

    macs    of the finished net
    folder  of the stage that is being trained
    before  epochs of the stages before it
    """

    task: TrialContext
    macs: int
    folder: Path | None = None
    before: int = 0

    def look(self) -> None:
        """Record the rungs that were reached. The figure of a rung is the best epoch of its stage until then."""
        self.task.check_alive()
        path = self.folder / HISTORY if self.folder else None
        history = read_history(path).get("dev_f1", ()) if path and path.exists() else ()
        for rung in self.task.open_rungs():
            if self.before < rung <= self.before + len(history):
                f1 = max(history[: rung - self.before])
                self.task.at_rung(rung, Figures(macs=self.macs, f1=f1, score=Scorer()(self.macs, f1)))


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """The objective of a search over `recipe`."""

    recipe: Recipe
    num_classes: int
    limits: Limits
    device: str = "cpu"
    log: Callable[[str], None] = print

    def __call__(self, task: TrialContext) -> Figures:
        """Train, or go on training, and judge on the dev split."""
        recipe, macs = self._planned(task)
        follower = Follower(task=task, macs=macs)
        stages = self._stages(recipe, task.folder, follower)
        for stage in stages.values():
            follower.folder = stage.folder.stage(stage.name)
            if not stage.path.exists():
                model, _ = stage.step()
                checkpoint.save(stage.path, model, stage.header(model, {}))
            follower.look()
            follower.before += epochs_of(stage.stage)
        figures = self._judged(stages[recipe.after])
        for stage in stages.values():
            stage.folder.drop_states(stage.name)
        return figures

    def _planned(self, task: TrialContext) -> tuple[Recipe, int]:
        """The trial's recipe and what After will cost. Raises `TrialRejected` when it is not worth training."""
        try:
            recipe = applied(self.recipe, task.drawn)
            net, example = foreseen(recipe, self.num_classes)
        except InputError as error:
            raise TrialRejected(f"these settings do not go together: {error}", UNBUILDABLE) from error
        count = macs(net, example)
        self.limits.check(count, task.done(), task.objective)
        self.limits.check_ram(net, example)
        return recipe, count

    def _stages(self, recipe: Recipe, folder: Path, follower: Follower) -> dict[str, StageRun]:
        """The stages that lead to After, watched before each of their epochs."""
        opened = opener(recipe.data, recipe.seed, splits=SPLITS)

        @cache
        def watched(size: int) -> Loaders:
            plain: Any = opened(size).train
            train = train_loader(plain.dataset, Watched(plain.batch_sampler, follower.look), plain.num_workers)
            return dataclasses.replace(opened(size), train=train)

        way = stages_to(recipe, recipe.after)
        return stage_runs(recipe, way, RunFolder(path=folder), watched, device=self.device, resume=True, log=self.log)

    def _judged(self, after: StageRun) -> Figures:
        reasons: list[str] = []
        model, example = checkpoint.load(after.path)[0], after.loaders.example()
        found = judge(model, example, {"": after.loaders.opened("dev")}, device=self.device)
        scored = score(model, example, found, reasons.append)
        if scored is None:
            raise InputError("; ".join(reasons))
        return Figures(macs=found["macs"], f1=found["quality"]["f1"], score=scored)
