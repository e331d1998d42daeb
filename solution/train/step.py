"""`Train` and `TrainDetector`, the steps: from scratch, and for fine-tuning after a cut; and what they minimize: a net
with its loss, and parts that are trained along with it and thrown away.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solution.contracts import InputError, Step, StepContext
from solution.graph import observe
from solution.losses.classification import Loss, Mixing
from solution.losses.margins import Margin, MarginHead
from solution.models.outputs import FeatureExtractor, classifier_path, logits_of, replace, scales
from solution.models.shufflenet import set_drop_path
from solution.train.settings import TrainSettings
from solution.train.trainer import Objective, fit, same

NUM_AUXILIARY = 2


class ClassificationObjective(Objective):
    """A net and its loss on labels.

    With `settings.margin` the net's classifier is a `MarginHead` while training, and folded at the end. With
    `settings.auxiliary` small heads on earlier feature maps are trained along (Szegedy et al., 2015, arXiv:1409.4842)
    and thrown away.
    """

    def __init__(self, net: nn.Module, settings: TrainSettings, context: StepContext) -> None:
        super().__init__()
        self.settings, self.context = settings, context
        set_drop_path(net, settings.drop_path)
        self.head = classifier_path(net) if settings.margin.on else ""
        if self.head:
            replace(net, self.head, MarginHead(net.get_submodule(self.head), settings.margin))
        self.auxiliary = _auxiliary(net, context) if settings.auxiliary else nn.ModuleDict()
        self.features = tuple(name.replace("/", ".") for name in self.auxiliary)
        self.net = net

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), labels (B,) or probabilities (B, C), and auxiliary inputs."""
        with FeatureExtractor(self.net, self.features) as features:
            logits = self.whole(logits_of(self.net(images)).float())
        return self.on_labels(logits, targets, features)

    def on_labels(self, logits: Tensor, targets: Tensor, features: FeatureExtractor) -> Tensor:
        """The loss on labels, with the margin and the auxiliary heads of the settings."""
        counts = self.context.counts
        if targets.ndim == 1 and targets.device.type == "cpu" and int(targets.max()) >= logits.shape[1]:
            raise InputError(
                f"a label is {int(targets.max())}, and the net has {logits.shape[1]} outputs: labels are counted from 0"
            )
        head = self.net.get_submodule(self.head) if self.head else None
        harder = head.with_margin(logits, targets) if isinstance(head, MarginHead) else logits
        total = self.settings.loss(harder, targets, counts)
        if not self.auxiliary:
            return total
        maps = [(classifier, features.maps[name.replace("/", ".")]) for name, classifier in self.auxiliary.items()]
        losses = [
            self.settings.loss(self.whole(classifier(found).float()), targets, counts) for classifier, found in maps
        ]
        return total + self.settings.auxiliary * torch.stack(losses).mean()

    def finished(self, net: nn.Module) -> nn.Module:
        """`net`, a copy of this objective's with the weights that are kept, without what this objective added to it."""
        head = net.get_submodule(self.head) if self.head else None
        if isinstance(head, MarginHead):
            dominant = _dominant(net, head, self.context) if head.settings.centers > 1 else None
            replace(net, self.head, head.fold(dominant))
        return net


def _auxiliary(net: nn.Module, context: StepContext) -> nn.ModuleDict:
    """Classifiers on the maps of the sizes before the last. ModuleDict takes no dots in its keys."""
    shapes = scales(net, context.example)
    with torch.no_grad():
        num_classes = logits_of(net.eval()(context.example)).shape[1]
    names = list(shapes)[-NUM_AUXILIARY - 1 : -1]
    return nn.ModuleDict({name.replace(".", "/"): _classifier(shapes[name][1], num_classes) for name in names})


def _classifier(channels: int, num_classes: int) -> nn.Module:
    mixed = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
    return nn.Sequential(*mixed, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


@torch.no_grad()
def _dominant(net: nn.Module, head: MarginHead, context: StepContext) -> Tensor:
    """The sub-center of each class that most training images are nearest to."""
    seen: list[Tensor] = []

    def keep(path: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(inputs[0].flatten(1))

    labels = []
    with observe({"": head}, before=keep):
        for images, batch_labels, *_ in context.calibration or context.need("train", "choosing sub-centers"):
            net.eval()(images)
            labels.append(batch_labels)
    return head.dominant(torch.cat(seen), torch.cat(labels))


class DetectionObjective(Objective):
    """A detector and its own loss: it has `loss(images, targets)`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, 3, H, W) and targets (M, 6): see `solution.models.yolo`."""
        if self.whole is same:
            return self.net.loss(images, targets)
        if "whole" not in inspect.signature(self.net.loss).parameters:
            raise InputError(
                f"the loss of {type(self.net).__name__} is of its own images alone: train it on one process, or let it "
                "take whole=, which makes of a tensor's rows those of all processes"
            )
        return self.net.loss(images, targets, whole=self.whole)


@dataclass(frozen=True, kw_only=True)
class Train(TrainSettings, Step):
    """Train on `context.train`; keep the epoch with the best macro F1 on `context.dev`, which decides.

    Fields: see `TrainSettings`.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """It learns from train."""
        return ("train",)

    @property
    def uses_train_data(self) -> bool:
        """It learns from train."""
        return True

    def objective(self, net: nn.Module, context: StepContext) -> Objective:
        """What is made small: `net` with its loss."""
        return ClassificationObjective(net, self, context)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A trained copy of `model`. `InputError` when the loss stops being a number."""
        return fit(model, self, context, self.objective)

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """`model`: a training changes no cost."""
        return model


@dataclass(frozen=True, kw_only=True)
class TrainDetector(Train):
    """`Train` with the net's own loss, for nets that have one; the last epoch is kept.

    What `Train` does to classes (loss, mixing, margin, auxiliary heads, growing images) is not for boxes.
    """

    epochs: int = 30
    lr: float = 2e-4
    optimizer: str = "adamw"
    warmup_epochs: float = 1.0
    weight_decay: float = 5e-4
    keep: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = Train(loss=Loss(), mixing=Mixing(), margin=Margin(kind="none"), keep="last")
        for name in ("loss", "mixing", "margin", "auxiliary", "first_size", "keep"):
            if getattr(self, name) != getattr(plain, name):
                raise InputError(f"a detector is trained without {name}: leave it at {getattr(plain, name)!r}")

    def objective(self, net: nn.Module, context: StepContext) -> Objective:
        """`net` and its loss. `InputError` when it has none."""
        if not hasattr(net, "loss"):
            raise InputError(f"{type(net).__name__} is no detector with a loss of its own: use Train for classifiers")
        return DetectionObjective(net)
