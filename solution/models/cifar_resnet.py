"""ResNets for pictures of 32 x 32 (He et al., 2016, arXiv:1512.03385, section 4.2), shortcuts without weights.

Modules are named as in the widely used files of published weights, so that these load by key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError, ModelSpec, remember

STAGE_CHANNELS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside an identity; where channels double, new ones of the identity are zeros (option A)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.widens = out_channels > in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 2 if self.widens else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W), half the side where channels double."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.widens:
            more = out.shape[1] - x.shape[1]
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more // 2, more - more // 2))
        return F.relu(out + x)


class CifarResNetModule(nn.Module):
    """The net that `CifarResNet.build` makes."""

    def __init__(self, settings: CifarResNet, num_classes: int) -> None:
        super().__init__()
        stem, *_ = widths = settings.channels()
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        units = (settings.depth - 2) // 6
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*[BasicBlock(before if index == 0 else channels, channels) for index in range(units)])
            for before, channels in zip((stem, *widths), widths, strict=False)
        )
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


@dataclass(frozen=True, kw_only=True)
class CifarResNet:
    """Settings of a ResNet for small pictures.

    depth  layers with weights: 6n + 2, as 20, 56 or 110
    width  multiplies the channels 16, 32, 64
    """

    depth: int = 56
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2:
            raise InputError(f"depth must be 6n + 2 and at least 8, as 20 or 56, got {self.depth}")
        if not 0 < self.width < math.inf:
            raise InputError(f"width must be a number above 0, got {self.width}")

    def channels(self) -> tuple[int, ...]:
        """Channels of the three stages."""
        return tuple(max(1, round(channels * self.width)) for channels in STAGE_CHANNELS)

    def build(self, num_classes: int) -> nn.Module:
        """A fresh net for `num_classes` classes, initialized after He et al., 2015."""
        net = CifarResNetModule(self, num_classes)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        return remember(net, ModelSpec(settings=self, num_classes=num_classes))
