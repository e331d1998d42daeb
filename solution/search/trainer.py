"""One trial: the stages that lead to After, each resumed where it stopped, judged on the dev split.

The val split is never opened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from solution import checkpoint
from solution.contracts import InputError, Recipe
from solution.data.loaders import Loaders
from solution.data.views import EpochSampler, train_loader
from solution.evaluate.score import Scorer
from solution.pipeline import StageRun, opener, stage_runs
from solution.run_folder import HISTORY, RunFolder, read_history
from solution.search.cost import UNBUILDABLE, Limits, epochs_of, foreseen_macs, stages_to
from solution.search.space import applied
from solution.search.study import Figures, TrialRejected
from solution.search.worker import TrialContext
from solution.tasks import judge

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
            macs = foreseen_macs(recipe, self.num_classes)
        except InputError as error:
            raise TrialRejected(f"these settings do not go together: {error}", UNBUILDABLE) from error
        self.limits.check(macs, task.done(), task.objective)
        return recipe, macs

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
        model = checkpoint.load(after.path)[0]
        batches: Any = {"": after.loaders.dev}
        found = judge(model, after.example(), batches, device=self.device, score=True, log=reasons.append)
        if found["score"] is None:
            raise InputError("; ".join(reasons))
        return Figures(macs=found["macs"], f1=found["quality"]["f1"], score=found["score"])
