"""`Pretrain`, the step: the trunk learns another set of pictures first, under a classifier that is thrown away."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

from torch import nn

from solution.contracts import InputError, StepContext
from solution.data.loaders import Data, Loaders
from solution.data.views import Views
from solution.models.classifiers import replace_classifier
from solution.models.features import classifier_path, replace
from solution.runtime import seed_everything
from solution.train.loop import fit
from solution.train.step import Train


@dataclass(frozen=True, kw_only=True)
class Pretrain(Train):
    """Train on the pictures at `path`, whatever their classes, then put the net's own classifier back as it was.

    They are seen as the task's are: same side, normalization and augmentation. All of their train split teaches, and
    the last epoch is kept.

    path        folder, archive or name, as in `Data`
    batch_size  pictures in a batch
    """

    path: str = ""
    batch_size: int = 64

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A copy of `model` with a trained trunk. `InputError` for pictures that are missing or cannot teach."""
        if not self.path:
            raise InputError("name the pictures to learn from first: --set STAGE.path=../photos.tar")
        loaders = self._open(context)
        net, name = copy.deepcopy(model), classifier_path(model)
        own = net.get_submodule(name)
        seed_everything(context.seed)
        replace_classifier(net, len(loaders.info.classes))
        trained = fit(net, self, _given(loaders, context))
        replace(trained, name, own.cpu())
        return trained.eval()

    def _open(self, context: StepContext) -> Loaders:
        """The other set, as the task's training pictures are seen."""
        side, workers = context.example.shape[2], getattr(context.train, "num_workers", 0)
        about = {"size": side, "cache_size": side, "batch_size": self.batch_size, "workers": workers}
        data, seen = Data(path=self.path, use_all_train=True, **about), {}
        task = getattr(context.train, "dataset", None)
        if isinstance(task, Views):
            data = dataclasses.replace(data, augment=task.view.augment)
            seen = {"normalization": task.normalization}
        return data.open(seed=context.seed, splits=("train",), **seen)


def _given(loaders: Loaders, context: StepContext) -> StepContext:
    counts = tuple(loaders.info.counts["train"].values())
    other = {"train": loaders.train, "dev": None, "calibration": None}
    return dataclasses.replace(context, classes=loaders.info.classes, counts=counts, **other)
