"""`Distill`, the step: a student learns from finished nets besides the labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from solution.contracts import Given, InputError
from solution.data.views import TrainLoader, with_beside
from solution.losses.distillation import Kd, Seen
from solution.train.loop import fit
from solution.train.step import Train
from solution.train.teachers import answers, as_teacher_sees, checkpoint_path


@dataclass(frozen=True, kw_only=True)
class Distill(Train):
    """Train on labels and on teachers' logits, which were computed once for every view (`data.views`).

    teachers  checkpoints, or folders of runs; the mean of their logits teaches
    kd        how logits are matched
    share     weight of the match; the loss on labels has the rest
    """

    teachers: tuple[str, ...] = ()
    kd: Kd = field(default_factory=Kd)
    share: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise InputError(f"share must lie in (0, 1], got {self.share}")
        if self.kd.needs_features:
            raise InputError("hint, attention, distance and angle need feature maps; stored answers hold logits alone")
        if self.mixing.on:
            raise InputError("mixing makes images that no teacher has answered; switch mixup and cutmix off")

    def objective(self, logits: Tensor, targets: Tensor, beside: Tensor | None, given: Given) -> Tensor:
        """The blend of the loss on labels and the match with the teachers' logits `beside` (B, C)."""
        matched = self.kd(Seen(logits), Seen(beside), targets)
        return (1 - self.share) * self.loss(logits, targets, given.counts) + self.share * matched

    def __call__(self, model: nn.Module, given: Given) -> nn.Module:
        """A trained copy of `model`. `InputError` for teachers that are missing or know other classes."""
        taught = with_beside(*self._lesson(given))
        return fit(model, self, dataclasses.replace(given, train=taught))

    def _lesson(self, given: Given) -> tuple[TrainLoader, np.ndarray]:
        loader = given.need("train", "distillation")
        if not self.teachers or given.load is None:
            raise InputError("name at least one teacher: --set STAGE.teachers=runs/teacher")
        if not isinstance(loader, TrainLoader) or not loader.batch_sampler.num_views:
            raise InputError("stored answers need a number of views: --set data.views=20")
        said = [self._answers(name, loader, given) for name in self.teachers]
        return loader, said[0] if len(said) == 1 else np.mean(said, axis=0)

    def _answers(self, name: str, loader: TrainLoader, given: Given) -> np.ndarray:
        path = checkpoint_path(name)
        teacher, header = given.load(path)
        if header.classes != given.classes:
            raise InputError(
                f"the teacher {path} knows the classes {', '.join(header.classes)}; "
                f"the data have {', '.join(given.classes)}"
            )
        views = as_teacher_sees(loader.dataset, header.size, (header.mean, header.std))
        return answers(teacher, views, loader.batch_sampler.num_views, given.say)
