"""`Distill`, the step: a student learns from finished nets besides the labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import Given, InputError
from solution.data.views import TrainLoader, with_beside
from solution.losses.distillation import Kd, Seen
from solution.models.taps import Taps, scales
from solution.train.lesson import Lesson
from solution.train.loop import fit
from solution.train.step import Train
from solution.train.teachers import LiveTeacher, answers, as_teacher_sees, find_net


@dataclass(frozen=True, kw_only=True)
class Distill(Train):
    """Train on labels and on what teachers say.

    Stored answers cost no teacher's forward, but need a number of views (`data.views`) and hold logits alone. A live
    teacher sees every batch anew: for feature maps, and for mixup and cutmix.

    teachers  checkpoints, folders of runs, or earlier stages of the same recipe by name; the mean of their logits
              teaches, the feature maps of the first
    kd        how logits and feature maps are matched; maps are the last ones before pooling
    share     weight of the match; the loss on labels has the rest
    live      ask the teachers at every step instead of storing their answers
    """

    teachers: tuple[str, ...] = ()
    kd: Kd = field(default_factory=Kd)
    share: float = 0.9
    live: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise InputError(f"share must lie in (0, 1], got {self.share}")
        if self.kd.needs_features and not self.live:
            raise InputError(
                "hint, attention, distance and angle need feature maps, and stored answers hold logits alone: "
                "set live=True"
            )
        if self.mixing.on and not self.live:
            raise InputError("mixing makes images that no teacher has answered: switch it off, or set live=True")

    @property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """The teachers."""
        return {"teachers": self.teachers}

    def lesson(self, net: nn.Module, given: Given) -> Lesson:
        """The net, its loss on labels and its match with the teachers."""
        return Taught(net, self, given)

    def __call__(self, model: nn.Module, given: Given) -> nn.Module:
        """A trained copy of `model`. `InputError` for teachers that are missing or know other classes."""
        if not self.teachers or given.load is None:
            raise InputError("name at least one teacher: --set STAGE.teachers=runs/teacher")
        if self.live:
            return fit(model, self, given)
        loader = given.need("train", "distillation")
        if not isinstance(loader, TrainLoader) or not loader.batch_sampler.num_views:
            raise InputError("stored answers need a number of views: --set data.views=20, or set live=True")
        said = [_stored(name, loader, given) for name in self.teachers]
        taught = with_beside(loader, said[0] if len(said) == 1 else np.mean(said, axis=0), given.say)
        return fit(model, self, dataclasses.replace(given, train=taught))


def _stored(name: str, loader: TrainLoader, given: Given) -> np.ndarray:
    teacher, header = find_net(name, given)
    views = as_teacher_sees(loader.dataset, header.size, (header.mean, header.std))
    return answers(teacher, views, loader.batch_sampler.num_views, given.say)


class Taught(Lesson):
    """A student's lesson: labels, and the teachers' answers, stored or live."""

    def __init__(self, net: nn.Module, settings: Distill, given: Given) -> None:
        super().__init__(net, settings, given)
        # In a tuple, so that teachers are no part of what is trained and saved.
        self.teachers = tuple(LiveTeacher(name, given) for name in settings.teachers) if settings.live else ()
        self.map, self.projection = "", None
        if settings.kd.needs_features:
            shapes = scales(net, given.example)
            self.map = list(shapes)[-1]
            channels, theirs = shapes[self.map][1], self.teachers[0].map_channels(given.example)
            self.projection = nn.Conv2d(channels, theirs, 1, bias=False) if settings.kd.hint else None

    def forward(self, images: Tensor, targets: Tensor, beside: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), targets, and the teachers' stored logits (B, num_classes), if any."""
        with Taps(self.net, (*self.taps, *filter(None, [self.map]))) as taps:
            logits = self.net(images).float()
        share = self.settings.share
        student = Seen(logits, taps.maps[self.map].float() if self.map else None)
        matched = self.settings.kd(student, self.said(images, beside), targets, self.projection)
        return share * matched if share == 1 else (1 - share) * self.on_labels(logits, targets, taps) + share * matched

    def said(self, images: Tensor, beside: Tensor | None) -> Seen:
        """The teachers' logits, and the first one's last feature map when features are matched."""
        if not self.teachers:
            return Seen(beside)
        with torch.no_grad():
            seen = [teacher(images, bool(self.map)) for teacher in self.teachers]
        return Seen(torch.stack([one.logits for one in seen]).mean(0), seen[0].features)
