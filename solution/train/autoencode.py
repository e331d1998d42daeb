"""`Autoencode`, the step: the trunk learns to keep what a small decoder needs to redraw the image, without labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError, StepContext
from solution.losses.objective import Loss
from solution.models.features import FeatureExtractor, classifier_path, scales
from solution.train.loop import fit
from solution.train.objective import Objective
from solution.train.sizes import resized
from solution.train.step import Train


@dataclass(frozen=True, kw_only=True)
class Autoencode(Train):
    """Train the trunk as the encoder of an autoencoder (Masci et al., 2011); the classifier stays as it is.

    The last feature map is drawn by a decoder, thrown away afterwards, that doubles its side some times; what comes
    out is compared with the normalized image at that size. The last epoch is kept.

    Squared errors are steep at first, so the optimizer is AdamW unless said otherwise.

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
        return fit(model, self, dataclasses.replace(context, dev=None))


class AutoencoderObjective(Objective):
    """A net, a decoder on its last feature map, and the squared error of what that draws."""

    def __init__(self, net: nn.Module, settings: Autoencode, context: StepContext) -> None:
        super().__init__(net, settings, context)
        shapes = scales(net, context.example)
        self.map = list(shapes)[-1]
        self.decoder = _decoder(shapes[self.map][1], settings.channels, settings.doublings)
        net.get_submodule(classifier_path(net)).requires_grad_(False)

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Mean squared error of images (B, C, H, W) redrawn small; labels and what lies beside play no part."""
        with FeatureExtractor(self.net, (self.map,)) as features:
            self.net(images)
        drawn = self.decoder(features.maps[self.map]).float()  # (B, C, h * 2^doublings, w * 2^doublings)
        return F.mse_loss(drawn, resized(images, drawn.shape[2]))


def _decoder(in_channels: int, channels: int, doublings: int) -> nn.Sequential:
    """Feature maps (B, in_channels, h, w) to images (B, 3, h * 2^doublings, w * 2^doublings)."""
    layers = [nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    for _ in range(doublings):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))
