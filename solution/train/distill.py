"""`Distill`, the step: a student learns from finished nets besides the labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import InputError, StepContext
from solution.data.views import TrainLoader, with_teacher_logits
from solution.losses.distillation import DistillLoss, NetOutput
from solution.models.features import FeatureExtractor, scales
from solution.train.loop import fit
from solution.train.objective import Objective
from solution.train.step import Train
from solution.train.teachers import LiveTeacher, as_teacher_sees, find_net, store_teacher_logits


@dataclass(frozen=True, kw_only=True)
class Distill(Train):
    """Train on labels and on what teachers say.

    Stored answers cost no teacher's forward, but need a number of views (`data.views`) and hold logits alone. A live
    teacher sees every batch anew: for feature maps, and for mixup and cutmix.

    teachers      checkpoints, folders of runs, or earlier stages of the same recipe by name; the mean of their logits
                  teaches, the feature maps of the first
    distill_loss  how logits and feature maps are matched; maps are the last ones before pooling
    share         weight of the match; the loss on labels has the rest
    live          ask the teachers at every step instead of storing their answers
    bf16_answers  stored answers are computed in bf16, by large teachers in half the time where the processor has it
    """

    teachers: tuple[str, ...] = ()
    distill_loss: DistillLoss = field(default_factory=DistillLoss)
    share: float = 0.9
    live: bool = False
    bf16_answers: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise InputError(f"share must lie in (0, 1], got {self.share}")
        if self.distill_loss.needs_features and not self.live:
            raise InputError(
                "hint, attention, distance and angle need feature maps, and stored answers hold logits alone: "
                "set live=True"
            )
        if self.mixing.on and not self.live:
            raise InputError("mixing makes images that no teacher has answered: switch it off, or set live=True")

    @property
    def requires(self) -> dict[str, tuple[str, ...]]:
        """The teachers."""
        return {"teachers": self.teachers}

    def objective(self, net: nn.Module, context: StepContext) -> Objective:
        """The net, its loss on labels and its match with the teachers."""
        return DistillObjective(net, self, context)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A trained copy of `model`. `InputError` for teachers that are missing or know other classes."""
        if not self.teachers or context.load is None:
            raise InputError("name at least one teacher: --set STAGE.teachers=runs/teacher")
        if self.live:
            return fit(model, self, context)
        loader = context.need("train", "distillation")
        if not isinstance(loader, TrainLoader) or not loader.batch_sampler.num_views:
            raise InputError("stored answers need a number of views: --set data.views=20, or set live=True")
        said = [self._stored(name, loader, context) for name in self.teachers]
        distilled = with_teacher_logits(loader, said[0] if len(said) == 1 else np.mean(said, axis=0), context.log)
        return fit(model, self, dataclasses.replace(context, train=distilled))

    def _stored(self, name: str, loader: TrainLoader, context: StepContext) -> np.ndarray:
        teacher, header = find_net(name, context)
        views = as_teacher_sees(loader.dataset, header.size, (header.mean, header.std))
        num_views = loader.batch_sampler.num_views
        return store_teacher_logits(teacher, views, num_views, context.log, bf16=self.bf16_answers)


class DistillObjective(Objective):
    """A student's lesson: labels, and the teachers' answers, stored or live."""

    def __init__(self, net: nn.Module, settings: Distill, context: StepContext) -> None:
        super().__init__(net, settings, context)
        # In a tuple, so that teachers are no part of what is trained and saved.
        self.teachers = tuple(LiveTeacher(name, context) for name in settings.teachers) if settings.live else ()
        self.map, self.projection = "", None
        if settings.distill_loss.needs_features:
            shapes = scales(net, context.example)
            self.map = list(shapes)[-1]
            channels, theirs = shapes[self.map][1], self.teachers[0].map_channels(context.example)
            self.projection = nn.Conv2d(channels, theirs, 1, bias=False) if settings.distill_loss.hint else None

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), targets, and the teachers' stored logits (B, num_classes), if any."""
        with FeatureExtractor(self.net, (*self.features, *filter(None, [self.map]))) as features:
            logits = self.net(images).float()
        share = self.settings.share
        student = NetOutput(logits, features.maps[self.map].float() if self.map else None)
        matched = self.settings.distill_loss(student, self.said(images, teacher_logits), targets, self.projection)
        return (
            share * matched if share == 1 else (1 - share) * self.on_labels(logits, targets, features) + share * matched
        )

    def said(self, images: Tensor, teacher_logits: Tensor | None) -> NetOutput:
        """The teachers' logits, and the first one's last feature map when features are matched."""
        if not self.teachers:
            return NetOutput(teacher_logits)
        with torch.no_grad():
            seen = [teacher(images, bool(self.map)) for teacher in self.teachers]
        return NetOutput(torch.stack([one.logits for one in seen]).mean(0), seen[0].features)
