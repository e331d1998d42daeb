"""`Recover`, the step: a cut net learns to give what the whole one gave, from a few hundred pictures without labels.

    import solution as fw
    smaller = fw.PruneChannels(macs="70%")(net, context)
    smaller = fw.Recover()(smaller, dataclasses.replace(context, original=net))

The whole net answers random crops and mirror images of the calibration pictures; the cut one learns its logits
(Hinton et al., 2015, arXiv:1503.02531; that a few pictures suffice when the student is a cut teacher: Li et al., 2020,
arXiv:1812.01839).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from solution.contracts import InputError, Step, StepContext
from solution.graph import as_judged, images_for
from solution.losses.distillation import temperature_kd
from solution.train.distillation import LiveTeacher
from solution.train.settings import TrainSettings
from solution.train.trainer import Objective, fit

_STEPS_AN_EPOCH = 50
_RATIO = 1.333
"""Crops are at most so much wider than high, or higher than wide."""
_SLOWER = 10
"""A further training, when the one before helped nothing, has so many times lower a rate."""


@dataclass(frozen=True, kw_only=True)
class Recover(Step):
    """Match the outputs of the net before it was cut, on calibration pictures alone: no labels, a few minutes.

    Logits (B, classes) are matched as distributions, outputs of any other shape by smooth L1 in units of their
    deviation. Inputs that are no pictures (B, C, H, W) are shown as they are. When the outputs end further from the
    whole net's than they began, lower rates are tried, and then the net stays as it came.

    teachers     checkpoints or earlier stages by name; their mean is matched. () takes the net before the first step
    steps        of the optimizer
    lr           peak learning rate of SGD with Nesterov momentum
    batch_size   pictures in a batch
    temperature  softens the logits
    crop_scale   share of a picture's area that a random crop keeps; (1, 1) keeps all of it
    flip         chance of a mirror image
    cutmix       chance that each picture of a batch gets a rectangle of another one: more to match than a few hundred
                 pictures show (Yun et al., 2019, arXiv:1905.04899)
    """

    teachers: tuple[str, ...] = ()
    steps: int = 1500
    lr: float = 0.1
    batch_size: int = 64
    temperature: float = 2.0
    crop_scale: tuple[float, float] = (0.25, 1.0)
    flip: float = 0.5
    cutmix: float = 0.5

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "temperature"):
            if not 0 < getattr(self, name) <= 100:
                raise InputError(f"{name} must lie in (0, 100], got {getattr(self, name)}")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise InputError(f"crop_scale must be (low, high) with 0 < low <= high <= 1, got {self.crop_scale}")
        for name in ("flip", "cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")

    @property
    def requires(self) -> dict[str, tuple[str, ...]]:
        """The teachers."""
        return {"teachers": self.teachers}

    @property
    def needs(self) -> tuple[str, ...]:
        """Calibration pictures."""
        return ("calibration",)

    @property
    def uses_train_data(self) -> bool:
        """It fits weights to calibration pictures, which are train's."""
        return True

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """`model`: a training changes no cost."""
        return model

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A copy of `model` whose outputs are nearer to the whole net's. `InputError` without one, or pictures."""
        batches = [_inputs(batch) for batch in context.need("calibration", "recover")]
        if not batches or any(batch.shape[1:] != batches[0].shape[1:] for batch in batches):
            raise InputError("recover needs calibration pictures, all of one size; check the calibration batches")
        pictures = images_for(model, torch.cat(batches))
        teacher = self._teacher(context)

        def distance(net: nn.Module) -> float:
            with as_judged(net):
                losses = [float(self.match(net(some), teacher(some))) for some in pictures.split(self.batch_size)]
            return sum(losses) / len(losses)

        before = distance(model)
        for lr in (self.lr, self.lr / _SLOWER, self.lr / _SLOWER**2):
            trained = self._trained(model, context, pictures, teacher, lr)
            after = math.inf if trained is None else distance(trained)
            if trained is not None and after < before:
                context.log(f"recovered: distance from the whole net's outputs {before:.4g} -> {after:.4g}")
                return trained
            context.log(f"at learning rate {lr:g} the outputs come no nearer to the whole net's ({after:.4g})")
        context.log("the net stays as it came: its outputs are as near to the whole net's as this training brings them")
        return copy.deepcopy(model).eval()

    def match(self, student: Any, teacher: Any) -> Tensor:
        """Scalar distance of two nets' outputs for one batch, 0 when they are equal; tensors in any nesting."""
        pairs = zip(_floating(student), _floating(teacher), strict=True)
        return torch.stack([self._match(ours, theirs) for ours, theirs in pairs]).mean()

    def _match(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = student.float(), teacher.float()
        if teacher.ndim == 2 and teacher.shape[1] > 1:
            return temperature_kd(student, teacher, self.temperature)
        # Each channel in its own unit: boxes are in pixels, classes are not.
        along = [dim for dim in range(teacher.ndim) if dim != 1]
        unit = teacher.std(along, keepdim=True, correction=0).clamp(min=1e-3)
        return F.smooth_l1_loss(student / unit, teacher / unit)

    def _teacher(self, context: StepContext) -> Callable[[Tensor], Any]:
        if self.teachers:
            nets = [LiveTeacher(name, context) for name in self.teachers]
            return lambda images: torch.stack([net(images, False).logits for net in nets]).mean(0)
        if context.original is None:
            raise InputError(
                "recover needs the net before the cut: pass StepContext(original=net), or name it with teachers=FILE"
            )
        whole = copy.deepcopy(context.original).to(context.device).eval().requires_grad_(False)

        def outputs(images: Tensor) -> Any:
            with torch.no_grad():
                return whole(images_for(whole, images))

        return outputs

    def _trained(
        self, model: nn.Module, context: StepContext, pictures: Tensor, teacher: Callable[[Tensor], Any], lr: float
    ) -> nn.Module | None:
        """A trained copy of `model`; None when its loss stopped being a number."""
        crops = Crops(self, pictures.to(context.device), context.seed)
        epochs = math.ceil(self.steps / len(crops))
        settings = TrainSettings(
            epochs=epochs, lr=lr, warmup_epochs=min(1.0, epochs / 10), weight_decay=0.0, keep="last", precision="fp32"
        )
        own = dataclasses.replace(context, train=crops, dev=None, folder=None)
        try:
            return fit(model, settings, own, lambda net, _: Matched(net, self.match, teacher))
        except InputError as error:
            context.log(str(error))
            return None


class Matched(Objective):
    """A net, and its distance from a teacher as the loss. The teacher is no part of what is trained."""

    def __init__(self, net: nn.Module, match: Callable[[Any, Any], Tensor], teacher: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.match, self.teacher = net, match, teacher

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W)."""
        return self.match(self.net(images), self.teacher(images))


class Crops:
    """Batches of (random crops and mirror images (B, C, H, W), no labels); each epoch's depend on seed and epoch."""

    def __init__(self, settings: Recover, pictures: Tensor, seed: int) -> None:
        self.settings, self.pictures, self.seed, self.epoch = settings, pictures, seed, 0

    def __len__(self) -> int:
        return min(self.settings.steps, _STEPS_AN_EPOCH)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        chance = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        size = min(self.settings.batch_size, len(self.pictures))
        for _ in range(len(self)):
            some = torch.randperm(len(self.pictures), generator=chance)[:size]
            images = self.pictures[some.to(self.pictures.device)]
            if images.ndim == 4:
                images = self._mixed(self._cropped(images, chance), chance)
            yield images, torch.zeros(size)

    def _cropped(self, images: Tensor, chance: torch.Generator) -> Tensor:
        """One crop of each of `images` (B, C, H, W), scaled to their size, a share of them mirrored."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(len(images)).uniform_(low, high, generator=chance)

        whole = self.settings.crop_scale == (1, 1)
        most = 0.0 if whole else math.log(_RATIO)
        area, ratio = uniform(*self.settings.crop_scale), uniform(-most, most).exp().sqrt()
        width, height = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
        mirrored = torch.where(uniform(0, 1) < self.settings.flip, -1.0, 1.0)
        grid = torch.zeros(len(images), 2, 3)  # of each image [[x scale, 0, x shift], [0, y scale, y shift]]
        grid[:, 0, 0], grid[:, 0, 2] = width * mirrored, uniform(-1, 1) * (1 - width)
        grid[:, 1, 1], grid[:, 1, 2] = height, uniform(-1, 1) * (1 - height)
        places = F.affine_grid(grid.to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, places, padding_mode="reflection", align_corners=False)

    def _mixed(self, images: Tensor, chance: torch.Generator) -> Tensor:
        """`images` (B, C, H, W), in a share of the batches with a rectangle of the next one in each."""
        mixed, share, top, left = torch.rand(4, generator=chance).tolist()
        if mixed >= self.settings.cutmix:
            return images
        height, width = (max(1, round(side * share**0.5)) for side in images.shape[2:])
        top, left = round(top * (images.shape[2] - height)), round(left * (images.shape[3] - width))
        place = (..., slice(top, top + height), slice(left, left + width))
        images = images.clone()
        images[place] = images.roll(1, 0)[place]
        return images


def _inputs(batch: Any) -> Tensor:
    """The pictures of a batch with or without labels."""
    images = batch if isinstance(batch, Tensor) else next(iter(tree_leaves(batch)), None)
    if not isinstance(images, Tensor):
        raise InputError(f"a calibration batch must be a tensor, or begin with one, got {type(batch).__name__}")
    return images


def _floating(outputs: Any) -> Sequence[Tensor]:
    found = [part for part in tree_leaves(outputs) if isinstance(part, Tensor) and part.is_floating_point()]
    if not found:
        raise InputError(f"recover matches tensors, and this net returns {type(outputs).__name__} without any")
    return found
