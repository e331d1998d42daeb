"""`Distill`, the step: a student learns from finished nets besides the labels. `Assist`, the step: a small second net
learns what the student misses, and the two are summed (residual knowledge distillation, Gao et al., 2020,
arXiv:2002.09168). The sum costs both nets; to fold it into one, let it teach:
``Distill(teachers=("runs/x/assist/model.safetensors",))``.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError, Plan, StepContext
from solution.data.decode import mapped
from solution.data.views import Normalization, TrainLoader, Viewer, Views, with_teacher_logits
from solution.evaluate.classify import predictor
from solution.locks import made_by_one
from solution.losses.distillation import DistillLoss, NetOutput, residual_target
from solution.models.outputs import FeatureExtractor, scales
from solution.models.shufflenet import ShuffleNet
from solution.models.weights import built
from solution.run_folder import after_in
from solution.runtime import cache_folder, seed_everything, written_whole
from solution.train.settings import resized
from solution.train.step import ClassificationObjective, Train
from solution.train.trainer import Objective, fit


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
            return fit(model, self, context, self.objective)
        loader = context.need("train", "distillation")
        num_views = getattr(getattr(loader, "batch_sampler", None), "num_views", 0)
        if not isinstance(loader, TrainLoader) or not isinstance(loader.dataset, Views) or not num_views:
            raise InputError("stored logits need a number of views: --set data.views=20, or set live=True")
        stored = []
        for name in self.teachers:
            teacher, header = find_net(name, context)
            views = as_teacher_sees(loader.dataset, header.size, (header.mean, header.std))
            stored.append(store_teacher_logits(teacher, views, num_views, context.log, bf16=self.bf16_answers))
        logits = stored[0] if len(stored) == 1 else np.mean(stored, axis=0)
        train = with_teacher_logits(loader, logits, context.log)
        return fit(model, self, dataclasses.replace(context, train=train), self.objective)


class DistillObjective(ClassificationObjective):
    """What a student minimizes: its loss on labels, and its distance from the teachers' outputs, stored or live."""

    settings: Distill

    def __init__(self, net: nn.Module, settings: Distill, context: StepContext) -> None:
        super().__init__(net, settings, context)
        # In a tuple, so that teachers are no part of what is trained and saved.
        self.teachers = tuple(LiveTeacher(name, context) for name in settings.teachers) if settings.live else ()
        self.map = ""
        self.projection: nn.Conv2d | None = None
        if settings.distill_loss.needs_features:
            shapes = scales(net, context.example)
            self.map = list(shapes)[-1]
            channels, theirs = shapes[self.map][1], self.teachers[0].map_channels(context.example)
            self.projection = nn.Conv2d(channels, theirs, 1, bias=False) if settings.distill_loss.hint else None

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), targets, and the teachers' stored logits (B, num_classes), if any."""
        with FeatureExtractor(self.net, (*self.features, *filter(None, [self.map]))) as features:
            logits = self.whole(self.net(images).float())
        share = self.settings.share
        student = NetOutput(logits, self.whole(features.maps[self.map].float()) if self.map else None)
        matched = self.settings.distill_loss(
            student, self.teacher_output(images, teacher_logits), targets, self.projection
        )
        if share == 1:
            return matched
        return (1 - share) * self.on_labels(logits, targets, features) + share * matched

    def teacher_output(self, images: Tensor, teacher_logits: Tensor | None) -> NetOutput:
        """The teachers' logits, and the first one's last feature map when features are matched."""
        if not self.teachers:
            if teacher_logits is None:
                raise InputError(
                    "stored logits are missing from the batch: set live=True, or give the step a TrainLoader"
                )
            return NetOutput(teacher_logits)
        with torch.no_grad():
            seen = [teacher(images, bool(self.map)) for teacher in self.teachers]
        logits, features = torch.stack([one.logits for one in seen]).mean(0), seen[0].features
        return NetOutput(self.whole(logits), None if features is None else self.whole(features))


BATCH = 64


def store_teacher_logits(
    teacher: nn.Module,
    views: Views,
    num_views: int,
    log: Callable[[str], None] = print,
    *,
    bf16: bool = False,
) -> np.ndarray:
    """Logits (num_views, N, C) float16, memory-mapped: `teacher`'s outputs for each of `views` of each picture.

    bf16: computed in it, which large nets do twice as fast on a processor that has it.
    """
    path = cache_folder() / f"answers-{_key(teacher, views, num_views, bf16)}.npy"
    with made_by_one(path):
        stored = mapped(path)
        if stored is not None:
            return stored
        log(f"the teacher answers {num_views} views of {len(views):,} pictures, once")
        with written_whole(path) as temporary:
            np.save(temporary, _ask(teacher, views, num_views, bf16))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def as_teacher_sees(views: Views, size: int, normalization: Normalization) -> Views:
    """The same crops, flips and colors at a teacher's own size in pixels, normalized as it wants them."""
    own = copy.copy(views)
    own.pixels = None  # stored views have the student's size
    own.view, own.normalization = Viewer(views.view.augment, size, views.view.seed), normalization
    return own


def _ask(teacher: nn.Module, views: Views, num_views: int, bf16: bool) -> np.ndarray:
    teacher.eval()
    logits = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for view in range(num_views):
            starts = range(0, len(views), BATCH)
            pairs = [[(view, index) for index in range(start, min(start + BATCH, len(views)))] for start in starts]
            logits.append(torch.cat([teacher(views.__getitems__(some)[0]).float() for some in pairs]))
    return torch.stack(logits).to(torch.float16).numpy()  # (num_views, N, C)


def _key(teacher: nn.Module, views: Views, num_views: int, bf16: bool) -> str:
    content = hashlib.sha256(b"bf16" if bf16 else b"")
    for name, tensor in teacher.state_dict().items():
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    content.update(repr((views.fingerprint(num_views), views.normalization)).encode())
    content.update(views.labels.numpy().tobytes())
    return content.hexdigest()[:32]


def find_net(name: str, context: StepContext) -> tuple[nn.Module, Any]:
    """The net and the header of a checkpoint, or of the After of a run's folder.

    `InputError` when it knows other classes than the data.
    """
    path = after_in(Path(name))
    if context.load is None:
        raise InputError("nothing here can read checkpoints: pass StepContext(load=...)")
    net, header = context.load(path)
    if not header.classes:
        shape = (1, len(header.mean), header.size, header.size)
        outputs = predictor(net)(torch.zeros(shape)).shape[1]
        if context.classes and outputs != len(context.classes):
            raise InputError(f"{path} has {outputs} outputs, and the data have {len(context.classes)} classes")
    elif header.classes != context.classes:
        raise InputError(
            f"{path} knows the classes {', '.join(header.classes)}; the data have {', '.join(context.classes)}"
        )
    return net, header


class LiveTeacher:
    """A teacher that sees a student's batches, resized and normalized as it wants them."""

    def __init__(self, name: str, context: StepContext) -> None:
        self.net, header = find_net(name, context)
        self.net.requires_grad_(False).to(context.device)
        self.size, theirs = header.size, (header.mean, header.std)
        ours = getattr(getattr(context.train, "dataset", None), "normalization", theirs)
        as_column = [[torch.tensor(values).view(1, -1, 1, 1) for values in pair] for pair in (ours, theirs)]
        (mean, std), (their_mean, their_std) = as_column
        self.factor, self.shift = std / their_std, (mean - their_mean) / their_std
        self.map = ""

    def map_channels(self, example: Tensor) -> int:
        """Channels of the last feature map, which is kept from now on."""
        shapes = scales(self.net, self._wanted(example.to(next(self.net.parameters()).device)))
        self.map = list(shapes)[-1]
        return shapes[self.map][1]

    def __call__(self, images: Tensor, with_map: bool) -> NetOutput:
        """Logits (B, num_classes) and, if wanted, the last feature map (B, F, H, W), of images (B, C, H, W)."""
        with FeatureExtractor(self.net, (self.map,) if with_map else ()) as features:
            logits = self.net(self._wanted(images)).float()
        return NetOutput(logits, features.maps[self.map].float() if with_map else None)

    def _wanted(self, images: Tensor) -> Tensor:
        return resized(images, self.size) * self.factor.to(images) + self.shift.to(images)


class Sum(nn.Module):
    """The sum of a finished net's logits and an assistant's. Training fits the assistant alone."""

    def __init__(self, student: nn.Module, assistant: nn.Module) -> None:
        super().__init__()
        self.student, self.assistant = student, assistant

    def train(self, mode: bool = True) -> Sum:
        """The assistant in training mode; the student's norms keep their statistics."""
        super().train(mode)
        self.student.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes)."""
        return self.student(x) + self.assistant(x)


@dataclass(frozen=True, kw_only=True)
class AssistPlan(Plan):
    """An assistant of the settings `assistant` beside the net, for `num_classes` classes."""

    kind: ClassVar[str] = "assist"
    assistant: dict[str, Any]
    num_classes: int

    def cut(self, model: nn.Module) -> nn.Module:
        """The `Sum` of `model` and a fresh assistant whose logits are zero."""
        assistant: Any = built(ShuffleNet(**self.assistant), self.num_classes)
        nn.init.zeros_(assistant.output.weight)
        model.requires_grad_(False)
        return Sum(model, assistant)

    def __str__(self) -> str:
        return f"an assistant beside the net, {self.num_classes} classes: {ShuffleNet(**self.assistant)}"


@dataclass(frozen=True, kw_only=True)
class Assist(Distill):
    """Train `assistant` so that student + assistant is the teacher: labels, and squared error of the residual.

    assistant  settings of the second net
    share      weight of the squared error
    """

    assistant: ShuffleNet = field(default_factory=lambda: ShuffleNet(units=(1, 1, 1)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill_loss.needs_features or self.margin.on or self.auxiliary:
            raise InputError("an assistant learns from logits: leave distill_loss, margin and auxiliary as they are")

    def objective(self, net: nn.Module, context: StepContext) -> Objective:
        """The objective of the assistant."""
        return Residual(net, self, context)

    def plan(self, model: nn.Module, context: StepContext) -> AssistPlan:
        """The assistant beside `model`."""
        settings = dataclasses.asdict(self.assistant)
        return AssistPlan(assistant=settings, num_classes=model.eval()(context.example).shape[1])

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The `Sum` with an assistant that has learned nothing."""
        return self.plan(model, context).apply(model)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The `Sum` of `model`, unchanged, and a trained assistant."""
        seed_everything(context.seed)
        return super().run(self.plan(model, context).apply(model), context)


class Residual(DistillObjective):
    """The part of the teachers' logits that the student misses."""

    settings: Assist
    net: Sum

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), targets, and the teachers' stored logits (B, num_classes), if any."""
        parts = (self.net.student, self.net.assistant)
        student, assistant = (self.whole(part(images).float()) for part in parts)
        missed = residual_target(student, self.teacher_output(images, teacher_logits).logits)
        share = self.settings.share
        matched = F.mse_loss(assistant, missed)
        return (1 - share) * self.settings.loss(student + assistant, targets, self.context.counts) + share * matched
