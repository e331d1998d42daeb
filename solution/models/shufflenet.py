"""ShuffleNet v1 (Zhang et al., 2017, arXiv:1707.01083), written to be cut: any units, widths and groups.

Modules are named as in pytorchcv, so that its published weights load by key. Activation, channel shuffle and the
residual sum are functional: the competition's count knows convolutions, norms, pooling and the classifier alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError, ModelSpec, remember

STEM_CHANNELS = 24
STAGE_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Channels of the first stage at width 1, by groups (table 1 of the paper); each later stage has twice as many."""


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, beside an identity (sum) or an average pool (concatenation)."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, downsample: bool, dense: bool) -> None:
        """`dense` makes the first 1x1 ungrouped: the stem has too few channels to be split."""
        super().__init__()
        self.groups, self.downsample = groups, downsample
        middle = out_channels // 4
        branch = out_channels - in_channels if downsample else out_channels
        stride = 2 if downsample else 1
        self.compress_conv1 = nn.Conv2d(in_channels, middle, 1, groups=1 if dense else groups, bias=False)
        self.compress_bn1 = nn.BatchNorm2d(middle)
        self.dw_conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.dw_bn2 = nn.BatchNorm2d(middle)
        self.expand_conv3 = nn.Conv2d(middle, branch, 1, groups=groups, bias=False)
        self.expand_bn3 = nn.BatchNorm2d(branch)
        if downsample:
            self.avgpool = nn.AvgPool2d(3, stride=2, padding=1)
        else:
            self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, or to (B, out_channels, H/2, W/2) when downsampling."""
        out = F.relu(self.compress_bn1(self.compress_conv1(x)), inplace=True)
        out = F.channel_shuffle(out, self.groups)
        out = self.dw_bn2(self.dw_conv2(out))
        out = self.expand_bn3(self.expand_conv3(out))
        if self.downsample:
            return F.relu(torch.cat((out, self.avgpool(x)), 1), inplace=True)
        return F.relu(drop_branch(out, self.drop_path if self.training else 0.0) + x, inplace=True)


class Stem(nn.Module):
    """3x3 convolution and max pool: a quarter of the input's side."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, out_channels, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, out_channels, H/4, W/4)."""
        return self.pool(F.relu(self.bn(self.conv(x)), inplace=True))


class ShuffleNetModule(nn.Module):
    """The net that `ShuffleNet.build` makes. Any units of a stage but its first may be taken out."""

    def __init__(self, settings: ShuffleNet, num_classes: int) -> None:
        super().__init__()
        stem, *stages = settings.channels()
        blocks: OrderedDict[str, nn.Module] = OrderedDict(init_block=Stem(stem))
        in_channels = stem
        for index, (units, out_channels) in enumerate(zip(settings.units, stages, strict=True)):
            blocks[f"stage{index + 1}"] = _stage(in_channels, out_channels, units, settings.groups, index == 0)
            in_channels = out_channels
        blocks["final_pool"] = nn.AdaptiveAvgPool2d(1)
        self.features = nn.Sequential(blocks)
        self.dropout = nn.Dropout(settings.dropout) if settings.dropout else nn.Identity()
        linear = settings.head == "linear"
        self.output = (
            nn.Linear(in_channels, num_classes) if linear else nn.Conv2d(in_channels, num_classes, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes)."""
        x = self.dropout(self.features(x))  # (B, C, 1, 1)
        return self.output(x.flatten(1)) if isinstance(self.output, nn.Linear) else self.output(x).flatten(1)


def _stage(in_channels: int, out_channels: int, units: int, groups: int, first: bool) -> nn.Sequential:
    stage: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(units):
        source = in_channels if index == 0 else out_channels
        dense = first and index == 0
        stage[f"unit{index + 1}"] = ShuffleUnit(source, out_channels, groups=groups, downsample=index == 0, dense=dense)
    return nn.Sequential(stage)


@dataclass(frozen=True, kw_only=True)
class ShuffleNet:
    """Settings of a ShuffleNet v1.

    units    units per stage; the first of each halves the side and widens
    width    multiplies all channels (0.25 is the competition's); rounded so that every grouped convolution divides
    widths   channels of stem and stages, in full, instead of `width`; stages in multiples of 4 * groups
    groups   1, 2, 3, 4 or 8
    head     "conv": bias-free 1x1 convolution, the competition's; "linear": with bias, as published
    dropout  share of features dropped before the classifier while training
    """

    units: tuple[int, ...] = (4, 8, 4)
    width: float = 0.25
    widths: tuple[int, ...] | None = None
    groups: int = 3
    head: str = "conv"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.groups not in STAGE_CHANNELS:
            raise InputError(f"groups must be one of {sorted(STAGE_CHANNELS)}, got {self.groups}")
        if not self.units or any(count < 1 for count in self.units):
            raise InputError(f"units must be one or more numbers of at least 1, got {self.units}")
        if not 0 < self.width < math.inf:
            raise InputError(f"width must be a number above 0, got {self.width}")
        if self.head not in ("conv", "linear"):
            raise InputError(f'head must be "conv" or "linear", got {self.head!r}')
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), got {self.dropout}")
        self._check_widths()

    def _check_widths(self) -> None:
        if self.widths is None:
            return
        if len(self.widths) != len(self.units) + 1:
            raise InputError(f"widths must name the stem and {len(self.units)} stages, got {self.widths}")
        stem, *stages = self.widths
        if stem < 1 or stem % self.groups or any(c % (4 * self.groups) for c in stages):
            raise InputError(
                f"widths {self.widths} do not divide: with groups {self.groups} the stem must be a multiple of "
                f"{self.groups} and each stage one of {4 * self.groups}"
            )
        if any(wide <= narrow for narrow, wide in zip(self.widths, stages, strict=False)):
            raise InputError(f"widths must grow from stage to stage, got {self.widths}")

    def channels(self) -> tuple[int, ...]:
        """Channels of the stem and of each stage."""
        if self.widths is not None:
            return self.widths
        widths = [_round_to(STEM_CHANNELS * self.width, self.groups)]
        for index in range(len(self.units)):
            wanted = STAGE_CHANNELS[self.groups] * 2**index * self.width
            # A stage's first unit adds channels to those that pass it by, so every stage must be wider.
            least = _round_up(widths[-1] + 1, 4 * self.groups)
            widths.append(max(least, _round_to(wanted, 4 * self.groups)))
        return tuple(widths)

    def build(self, num_classes: int) -> nn.Module:
        """A fresh net for `num_classes` classes: convolutions after He et al., 2015, a quiet classifier."""
        net = ShuffleNetModule(self, num_classes)
        for module in net.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.normal_(net.output.weight, std=0.01)
        return remember(net, ModelSpec(settings=self, num_classes=num_classes))


def _round_to(value: float, multiple: int) -> int:
    return max(multiple, round(value / multiple) * multiple)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def load_pytorchcv(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill `net` with pytorchcv's weights for the same shape; a classifier for other classes is left as it is.

    A linear classifier's weight (C, F) fits a 1x1 convolution (C, F, 1, 1); its bias then has no place, so it must
    be zero. Raises `InputError` naming what does not fit.
    """
    own = net.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("output.")} | _head(own, state)
    wrong = [key for key in own if key not in state and not key.startswith("output.")]
    wrong += [key for key, value in state.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise InputError(f"these weights are of another net: {', '.join(wrong[:5])} do not fit ({len(wrong)} in all)")
    net.load_state_dict(state, strict=False)


def _head(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weight = state["output.weight"]
    if weight.shape[0] != own["output.weight"].shape[0]:
        return {}
    head = {"output.weight": weight.view_as(own["output.weight"])}
    if "output.bias" in own:
        return head | {"output.bias": state["output.bias"]}
    if state["output.bias"].any():
        raise InputError('a bias-free classifier cannot take a biased one: build the net with head="linear"')
    return head


def drop_branch(branch: Tensor, drop_path: float) -> Tensor:
    """`branch` (B, C, H, W), zero for each image with the chance `drop_path`, else scaled up to keep the mean."""
    if not drop_path:
        return branch
    # Drawn on the CPU, whose random state a resumed training takes up.
    alive = torch.rand(len(branch), 1, 1, 1) >= drop_path
    return branch * alive.to(branch) / (1 - drop_path)


def set_drop_path(net: nn.Module, last: float) -> None:
    """Let the blocks of `net` be skipped with a chance that grows linearly with depth, to `last` of the last block.

    `InputError` when no block offers itself, unless `last` is 0.
    """
    # Other libraries' blocks keep a module, or nothing, under this name.
    blocks = [module for module in net.modules() if isinstance(getattr(module, "drop_path", None), float)]
    if last and not blocks:
        raise InputError(f"{type(net).__name__} has no block that can be skipped while training: set drop_path to 0")
    for number, block in enumerate(blocks, start=1):
        setattr(block, "drop_path", last * number / len(blocks))  # noqa: B010 - a number, where typing expects a module
