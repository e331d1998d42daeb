"""`Pretrain`, the step: the trunk learns another set of pictures first, under a classifier that is thrown away."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError, Step, StepContext
from solution.data.loaders import Data, Loaders
from solution.data.views import Views
from solution.losses.classification import Loss
from solution.models.classifiers import replace_classifier
from solution.models.outputs import FeatureExtractor, classifier_path, replace, scales
from solution.runtime import seed_everything
from solution.train.distillation import find_net
from solution.train.settings import resized
from solution.train.step import ClassificationObjective, Train
from solution.train.trainer import Objective, fit


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
        counts = tuple(loaders.info.counts["train"].values())
        other = dataclasses.replace(
            context, classes=loaders.info.classes, counts=counts, train=loaders.train, dev=None, calibration=None
        )
        trained = fit(net, self, other, self.objective)
        replace(trained, name, own.cpu())
        return trained.eval()

    def _open(self, context: StepContext) -> Loaders:
        """The other set, as the task's training pictures are seen."""
        side, workers = context.example.shape[2], getattr(context.train, "num_workers", 0)
        data = Data(
            path=self.path,
            use_all_train=True,
            size=side,
            cache_size=side,
            batch_size=self.batch_size,
            workers=workers,
        )
        task = getattr(context.train, "dataset", None)
        if not isinstance(task, Views):
            return data.open(seed=context.seed, splits=("train",))
        data = dataclasses.replace(data, augment=task.view.augment)
        return data.open(seed=context.seed, splits=("train",), normalization=task.normalization)


@dataclass(frozen=True, kw_only=True)
class Autoencode(Train):
    """Train the trunk as the encoder of an autoencoder (Masci et al., 2011); the classifier stays as it is.

    The last feature map is drawn by a decoder, thrown away afterwards, that doubles its side some times; what comes
    out is compared with the normalized image at that size. The last epoch is kept.

    Squared errors are steep at first, so the optimizer is AdamW unless set otherwise.

    doublings  how often the side of the last feature map is doubled
    channels   width of the decoder
    """

    lr: float = 5e-3
    optimizer: str = "adamw"
    doublings: int = 3
    channels: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.doublings <= 8:
            raise InputError(f"doublings must lie in [0, 8], got {self.doublings}")
        if self.channels < 1:
            raise InputError(f"channels must be at least 1, got {self.channels}")
        if self.loss != Loss() or self.mixing.on or self.margin.on or self.auxiliary:
            raise InputError("an autoencoder has no labels: leave loss, mixing, margin and auxiliary as they are")

    def objective(self, net: nn.Module, context: StepContext) -> Objective:
        """The net and its decoder."""
        return AutoencoderObjective(net, self, context)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A copy of `model` with a trained trunk."""
        return fit(model, self, dataclasses.replace(context, dev=None), self.objective)


class AutoencoderObjective(ClassificationObjective):
    """A net, a decoder on its last feature map, and the squared error of what that draws."""

    def __init__(self, net: nn.Module, settings: Autoencode, context: StepContext) -> None:
        super().__init__(net, settings, context)
        shapes = scales(net, context.example)
        self.map = list(shapes)[-1]
        self.decoder = _decoder(shapes[self.map][1], settings.channels, settings.doublings)
        net.get_submodule(classifier_path(net)).requires_grad_(False)

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Mean squared error of images (B, C, H, W) redrawn small; labels and stored logits play no part."""
        with FeatureExtractor(self.net, (self.map,)) as features:
            self.net(images)
        drawn = self.decoder(features.maps[self.map]).float()  # (B, C, h * 2^doublings, w * 2^doublings)
        return F.mse_loss(self.whole(drawn), self.whole(resized(images, drawn.shape[2])))


def _decoder(in_channels: int, channels: int, doublings: int) -> nn.Sequential:
    """Feature maps (B, in_channels, h, w) to images (B, 3, h * 2^doublings, w * 2^doublings)."""
    layers = [nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    for _ in range(doublings):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))


@dataclass(frozen=True, kw_only=True)
class Start(Step):
    """The net of a checkpoint in place of the recipe's fresh one: as it was built, cut and trained.

    path  a checkpoint, packed or not, or the folder of a run, whose After is taken
    """

    path: str

    @property
    def requires(self) -> dict[str, tuple[str, ...]]:
        """The net to go on from."""
        return {"path": (self.path,)}

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The net. `InputError` for a file that is missing, or a net that knows other classes than the data."""
        if context.load is None:
            raise InputError("nothing here can read checkpoints: pass StepContext(load=...)")
        return find_net(self.path, context)[0]

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The net itself: what it costs is known from its file."""
        return self.run(model, context)


@dataclass(frozen=True, kw_only=True)
class Unchanged(Step):
    """The net as it came, with the weights that it came with."""

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A copy."""
        return copy.deepcopy(model).eval()

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """`model`."""
        return model
