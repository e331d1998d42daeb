"""Nets that compute with their own width, or take statistics over it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class Between(nn.Module):
    """Two convolutions, a function, three convolutions, a classifier."""

    def __init__(self, function: Callable[[Tensor], Tensor], read: int = 32) -> None:
        super().__init__()
        self.function = function
        self.stem, self.a = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 32, 3, padding=1)
        self.b = nn.Conv2d(read, 32, 3, padding=1)
        self.c, self.d, self.head = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.function(self.a(F.relu(self.stem(x))))
        return self.head(F.relu(self.d(F.relu(self.c(F.relu(self.b(x)))))).mean((2, 3)))


def root_of_width() -> nn.Module:
    """Divides by the root of the number of channels."""
    return Between(lambda x: F.relu(x) / x.shape[1] ** 0.5)


def number_of_elements() -> nn.Module:
    """Divides a sum by the number of elements of a picture."""
    return Between(lambda x: x * (x.pow(2).sum((1, 2, 3), keepdim=True) / x[0].numel()).rsqrt())


def logarithm_of_width() -> nn.Module:
    """Entropy over channels, relative to the largest there can be."""

    def function(x: Tensor) -> Tensor:
        p = x.softmax(1)
        return x * (-(p * p.log()).sum(1, keepdim=True) / math.log(x.size(1)))

    return Between(function)


def branch_on_width() -> nn.Module:
    """Wide maps pass an activation, narrow ones none."""
    return Between(lambda x: F.relu(x) if x.shape[1] > 20 else x)


def branch_on_evenness() -> nn.Module:
    """Maps whose width is a multiple of four are shuffled."""
    return Between(lambda x: F.channel_shuffle(x.tanh(), 4) if x.size(1) % 4 == 0 else x)


def loop_over_width() -> nn.Module:
    """As many iterations as there are tens of channels."""

    def function(x: Tensor) -> Tensor:
        for _ in range(x.shape[1] // 10):
            x = torch.tanh(1.5 * x)
        return x

    return Between(function)


def slope_of_width() -> nn.Module:
    """A slope that depends on the width."""
    return Between(lambda x: F.leaky_relu(x, 1.0 / x.shape[1]))


def padded_to_number() -> nn.Module:
    """Padded with channels of zeros up to a literal width."""
    return Between(lambda x: F.pad(F.relu(x), (0, 0, 0, 0, 0, 40 - x.shape[1])), read=40)


def mean_of_channels() -> nn.Module:
    """Scaled by the mean over channels, written as a sum and a division."""
    return Between(lambda x: x * torch.sigmoid(x.sum(1, keepdim=True) / x.shape[1]))


def response_across() -> nn.Module:
    """Local response normalization."""
    return Between(lambda x: F.local_response_norm(F.relu(x), 5))


def softmax_over_channels() -> nn.Module:
    """A softmax across channels."""
    return Between(lambda x: x.softmax(dim=1) * 8)


def unit_length() -> nn.Module:
    """Each place's features have length one."""
    return Between(lambda x: F.normalize(x, dim=1))


def strongest() -> nn.Module:
    """Each place keeps what is at least half as strong as its strongest channel."""
    return Between(lambda x: x * (x >= 0.5 * x.amax(1, keepdim=True)).to(x.dtype))


def running_sum() -> nn.Module:
    """A running sum over channels."""
    return Between(lambda x: F.relu(x).cumsum(1) * 0.1)


def sorted_channels() -> nn.Module:
    """Channels in the order of their size."""
    return Between(lambda x: x.sort(dim=1)[0])


def few_largest() -> nn.Module:
    """The eight largest of each place."""
    return Between(lambda x: x.topk(8, dim=1)[0], read=8)


def differences() -> nn.Module:
    """Differences of neighbouring channels."""
    return Between(lambda x: x.diff(dim=1), read=31)


def positions_by_width() -> nn.Module:
    """Sinusoids along the channels, made for the width at hand."""

    def function(x: Tensor) -> Tensor:
        phase = torch.arange(x.shape[1], dtype=x.dtype) / x.shape[1]
        return x + torch.sin(6 * phase).view(1, -1, 1, 1)

    return Between(function)


class NormOfMap(nn.Module):
    """Layer norms over channels, height and width at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 24, 3, 1, 1), nn.Conv2d(24, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.n1, self.n2, self.n3 = nn.LayerNorm([24, 12, 12]), nn.LayerNorm([32, 6, 6]), nn.LayerNorm((32, 6, 6))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.n2(self.b(F.relu(self.n1(self.a(x))))))
        return self.head(F.relu(self.n3(self.c(x))).mean((2, 3)))


class NormFunctional(nn.Module):
    """Layer norms by function over the whole sample, without weights; group norm of one group by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 24, 3, 1, 1), nn.Conv2d(24, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = self.b(F.relu(F.layer_norm(x, x.shape[1:])))
        var, mean = torch.var_mean(x, dim=(1, 2, 3), keepdim=True)
        x = self.c(F.relu((x - mean) * torch.rsqrt(var + 1e-5)))
        return self.head(F.relu(F.group_norm(x, 4)).mean((2, 3)))


class WidthGroups(nn.Module):
    """A number of groups computed from the width when the net is built, and again in the forward."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, c, 3, 1, 1), nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, c, 3, 1, 1)
        self.norm, self.head = nn.GroupNorm(c // 8, c), nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.b(F.relu(self.a(x)))))
        x = F.group_norm(self.c(x), x.shape[1] // 8)
        return self.head(F.relu(x).mean((2, 3)))


SHAPE = (2, 3, 12, 12)
WIDTH = (root_of_width, number_of_elements, logarithm_of_width, branch_on_width, branch_on_evenness, loop_over_width)
OVER = (mean_of_channels, softmax_over_channels, unit_length, strongest, NormOfMap, NormFunctional)
RANKED = (response_across, running_sum, sorted_channels, few_largest, differences)
NETS: tuple[UserNet, ...] = nets(
    "numbers",
    *((build, SHAPE, "width number") for build in (*WIDTH, slope_of_width, padded_to_number, positions_by_width)),
    *((build, SHAPE, "over channels") for build in (*OVER, *RANKED)),
    (WidthGroups, SHAPE, "width number"),
)
