"""Nets that index, repeat, permute, mask or stride over their channels between two convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class Between(nn.Module):
    """Two convolutions, a function that may use layers and buffers, three convolutions, a classifier."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module, read: int = 32, **buffers: Tensor) -> None:
        super().__init__()
        self.function, self.layers, self.names = function, nn.ModuleList(layers), tuple(buffers)
        self.stem, self.a = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 32, 3, padding=1)
        self.b, self.c = nn.Conv2d(read, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.d, self.head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 5)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(F.relu(self.stem(x)))
        x = self.function(x, *self.layers, *(getattr(self, name) for name in self.names))
        return self.head(F.relu(self.d(F.relu(self.c(F.relu(self.b(x)))))).mean((2, 3)))


def stored_permutation() -> nn.Module:
    """A permutation that was drawn when the net was made."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    return Between(lambda x, order: x * x[:, order].sigmoid(), order=order)


def stored_subset() -> nn.Module:
    """Every third channel by a stored index."""
    return Between(lambda x, index: x.index_select(1, index), read=11, index=torch.arange(0, 32, 3))


def made_index() -> nn.Module:
    """Even and odd channels by indices made in the forward."""

    def function(x: Tensor) -> Tensor:
        even = torch.arange(0, x.shape[1], 2)
        return torch.cat([x[:, even].tanh(), x[:, even + 1]], 1)

    return Between(function)


def stored_mask() -> nn.Module:
    """A mask of channels that was drawn when the net was made."""
    mask = (torch.rand(1, 32, 1, 1, generator=torch.Generator().manual_seed(3)) > 0.4).float()
    return Between(lambda x, mask: x * mask, mask=mask)


def chosen_by_mask() -> nn.Module:
    """One of two activations by a stored mask of channels."""
    mask = torch.arange(32).view(1, 32, 1, 1) % 3 == 0
    return Between(lambda x, mask: torch.where(mask, x.sin(), x), mask=mask)


def narrowed() -> nn.Module:
    """Parts by narrow, joined in the other order."""

    def function(x: Tensor) -> Tensor:
        half = x.size(1) // 2
        return torch.cat([x.narrow(1, half, half).cos(), x.narrow(1, 0, half)], 1)

    return Between(function)


def repeated() -> nn.Module:
    """All channels twice, one copy rolled in space."""
    return Between(lambda x: torch.cat([x, x.roll(1, 2)], 1) + x.repeat(1, 2, 1, 1), read=64)


def repeated_each() -> nn.Module:
    """Each channel twice, one after another."""
    return Between(lambda x: x.repeat_interleave(2, 1).tanh(), read=64)


def mean_of_pairs() -> nn.Module:
    """Neighbouring channels are averaged through a pool over channels."""
    return Between(lambda x: F.avg_pool1d(x.flatten(2).mT, 2).mT.unflatten(2, x.shape[2:]), read=16)


def windows_of_channels() -> nn.Module:
    """Windows of four channels, each of which is normalized."""

    def function(x: Tensor) -> Tensor:
        windows = x.unfold(1, 4, 4)  # (B, C / 4, H, W, 4)
        return (windows / (windows.norm(dim=-1, keepdim=True) + 0.1)).permute(0, 1, 4, 2, 3).flatten(1, 2)

    return Between(function)


def channels_as_depth() -> nn.Module:
    """A three-dimensional convolution over channels, height and width, as for spectra."""
    return Between(lambda x, conv: conv(x.unsqueeze(1)).squeeze(1), nn.Conv3d(1, 1, 3, padding=1))


def channels_as_steps() -> nn.Module:
    """A recurrent layer that reads channel after channel."""

    def function(x: Tensor, gru: nn.Module, out: nn.Module) -> Tensor:
        y, _ = gru(x.mean((2, 3)).unsqueeze(2))
        return x * out(y).squeeze(2)[:, :, None, None].sigmoid()

    return Between(function, nn.GRU(1, 6, batch_first=True), nn.Linear(6, 1))


def merged_with_height() -> nn.Module:
    """Channels and height become one dimension, and part again."""

    def function(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.reshape(b, c * h, w).softmax(1).view(b, c, h, w) * 50

    return Between(function)


def height_before_channels() -> nn.Module:
    """Height and channels are merged in the other order, and a half of that is scaled."""

    def function(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.permute(0, 2, 1, 3).reshape(b, h * c, w)
        y = torch.cat([y[:, : h * c // 2] * 2, y[:, h * c // 2 :]], 1)
        return y.view(b, h, c, w).permute(0, 2, 1, 3)

    return Between(function)


def unequal_shuffle() -> nn.Module:
    """Pixel shuffle of one part, the rest down-sampled."""

    def function(x: Tensor) -> Tensor:
        up, rest = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        return torch.cat([F.pixel_shuffle(up, 2), F.interpolate(rest, scale_factor=2)], 1)

    return Between(function, read=20)


def negative_pad() -> nn.Module:
    """The last four channels are dropped by a negative pad."""
    return Between(lambda x: F.pad(x, (0, 0, 0, 0, 0, -4)), read=28)


def swapped_halves() -> nn.Module:
    """A roll by half of the channels, and a residual."""
    return Between(lambda x: x + x.roll(x.shape[1] // 2, 1).tanh())


def part_norm() -> nn.Module:
    """Instance norm without weights on one half, the other as it is (IBN)."""

    def function(x: Tensor, norm: nn.Module) -> Tensor:
        a, b = torch.split(x, x.shape[1] // 2, 1)
        return torch.cat((F.instance_norm(a.contiguous()), norm(b.contiguous())), 1)

    return Between(function, nn.BatchNorm2d(16))


def gate_by_heads() -> nn.Module:
    """A computed temperature for each of four groups of channels."""

    def function(x: Tensor, fc: nn.Module) -> Tensor:
        b, c, h, w = x.shape
        gate = fc(x.mean((2, 3))).sigmoid().view(b, 4, 1, 1, 1)
        return (x.reshape(b, 4, c // 4, h, w) * gate).reshape(b, c, h, w)

    return Between(function, nn.Linear(32, 4))


def scale_by_heads() -> nn.Module:
    """One learnt number for each of eight groups, expanded by repetition."""
    layers = nn.ParameterList([nn.Parameter(torch.rand(8) + 0.5)])

    def function(x: Tensor, scales: nn.ParameterList) -> Tensor:
        return x * scales[0].repeat_interleave(x.shape[1] // 8).view(1, -1, 1, 1)

    return Between(function, layers)


def strided_write() -> nn.Module:
    """Two branches are written into every other channel of one map."""

    def function(x: Tensor, other: nn.Module) -> Tensor:
        out = x.new_empty(x.shape[0], 2 * x.shape[1], *x.shape[2:])
        out[:, ::2], out[:, 1::2] = x, other(x)
        return out

    return Between(function, nn.Conv2d(32, 32, 1), read=64)


def stacked() -> nn.Module:
    """Two branches stacked on a new dimension and merged, so that their channels interleave."""
    return Between(lambda x, other: torch.stack([x, other(x)], 2).flatten(1, 2).tanh(), nn.Conv2d(32, 32, 1), read=64)


def copied_part() -> nn.Module:
    """A quarter is overwritten by another quarter."""

    def function(x: Tensor) -> Tensor:
        x, k = x.clone(), x.shape[1] // 4
        x[:, :k] = x[:, 2 * k : 3 * k].sin()
        return x

    return Between(function)


def blended() -> nn.Module:
    """Blends with the reversed channels by a stored ramp over channels."""
    return Between(lambda x, ramp: torch.lerp(x, x.flip(1), ramp), ramp=torch.linspace(0, 1, 32).view(1, 32, 1, 1))


def several_shuffles() -> nn.Module:
    """Two shuffles of different groups with unlike parts after each."""

    def function(x: Tensor) -> Tensor:
        for groups in (2, 4):
            u, v = F.channel_shuffle(x, groups).chunk(2, 1)
            x = torch.cat([u.relu(), v.neg()], 1)
        return x

    return Between(function)


SHAPE = (2, 3, 12, 12)
INDEXED = (stored_permutation, stored_subset, made_index, stored_mask, chosen_by_mask, narrowed)
REPEATED = (repeated, repeated_each, strided_write, stacked, copied_part, blended, swapped_halves)
OVER = (mean_of_pairs, windows_of_channels, channels_as_depth, channels_as_steps, merged_with_height)
PARTS = (height_before_channels, unequal_shuffle, negative_pad, part_norm, gate_by_heads, scale_by_heads)
NETS: tuple[UserNet, ...] = nets(
    "rearranged",
    *((build, SHAPE, "index") for build in INDEXED),
    *((build, SHAPE, "copies") for build in REPEATED),
    *((build, SHAPE, "over channels") for build in OVER),
    *((build, SHAPE, "parts") for build in (*PARTS, several_shuffles)),
)
