"""One trial: the stages that lead to After, each resumed where it stopped, judged on the dev split.

The val split is never opened.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

from solution import checkpoint
from solution.contracts import InputError, Recipe, Stage
from solution.data.loaders import Loaders
from solution.data.views import EpochSampler, train_loader
from solution.evaluate.classify import classify, predictor
from solution.evaluate.score import Scorer
from solution.pipeline import MODEL, Job, opener, scored
from solution.search.cost import UNBUILDABLE, Limits, epochs_of, foreseen_macs, stages_to
from solution.search.outcomes import TrialRejected
from solution.search.space import applied
from solution.search.study import Figures
from solution.search.worker import Task
from solution.train.state import HISTORY, drop_states

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

    task: Task
    macs: int
    folder: Path | None = None
    before: int = 0

    def look(self) -> None:
        """Record the rungs that were reached. The figure of a rung is the best epoch of its stage until then."""
        self.task.check_alive()
        history = _dev_f1(self.folder / HISTORY)
        for rung in self.task.open_rungs():
            if self.before < rung <= self.before + len(history):
                f1 = max(history[: rung - self.before])
                self.task.at_rung(rung, Figures(macs=self.macs, f1=f1, score=Scorer()(self.macs, f1)))


def _dev_f1(path: Path) -> list[float]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [float(row["dev_f1"]) for row in csv.DictReader(file) if "dev_f1" in row]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """The objective of a search over `recipe`."""

    recipe: Recipe
    num_classes: int
    limits: Limits
    device: str = "cpu"
    log: Callable[[str], None] = print

    def __call__(self, task: Task) -> Figures:
        """Train, or go on training, and judge on the dev split."""
        recipe, macs = self._planned(task)
        follower = Follower(task=task, macs=macs)
        job = self._job(recipe, task.folder, follower)
        for stage in stages_to(recipe, recipe.after):
            follower.folder = task.folder / stage.name
            if not (follower.folder / MODEL).exists():
                self._keep(job, stage, job.step(stage)[0])
            follower.look()
            follower.before += epochs_of(stage)
        figures = self._judged(job)
        drop_states(task.folder)
        return figures

    def _planned(self, task: Task) -> tuple[Recipe, int]:
        """The trial's recipe and what After will cost. Raises `Refused` when it is not worth training."""
        try:
            recipe = applied(self.recipe, task.drawn)
            macs = foreseen_macs(recipe, self.num_classes)
        except InputError as error:
            raise TrialRejected(f"these settings do not go together: {error}", UNBUILDABLE) from error
        self.limits.check(macs, task.done(), task.objective)
        return recipe, macs

    def _job(self, recipe: Recipe, folder: Path, follower: Follower) -> Job:
        opened = opener(recipe.data, recipe.seed, splits=SPLITS)

        @cache
        def watched(size: int) -> Loaders:
            plain = opened(size).train
            train = train_loader(plain.dataset, Watched(plain.batch_sampler, follower.look), plain.num_workers)
            return dataclasses.replace(opened(size), train=train)

        return Job(recipe=recipe, out=folder, loaders=watched, device=self.device, resume=True, log=self.log)

    def _keep(self, job: Job, stage: Stage, model: nn.Module) -> None:
        checkpoint.save(job.out / stage.name / MODEL, model, job.header(stage, model, {}))

    def _judged(self, job: Job) -> Figures:
        model = checkpoint.load(job.out / job.recipe.after / MODEL)[0]
        stage = job.recipe.stage(job.recipe.after)
        f1 = classify(predictor(model, self.device), job.shown(stage).dev).f1
        said: list[str] = []
        cost = scored(model, job.example(stage), f1, said.append)
        if cost["score"] is None:
            raise InputError("; ".join(said))
        return Figures(macs=cost["macs"], f1=f1, score=cost["score"])
