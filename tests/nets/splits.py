"""Nets that treat parts of their channels differently, most without any weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class Between(nn.Module):
    """Two convolutions with a function between them that parts the channels, then more."""

    def __init__(self, function: Callable[[Tensor], Tensor], inputs: int = 32, outputs: int = 32) -> None:
        super().__init__()
        self.function = function
        self.a = nn.Conv2d(3, inputs, 3, padding=1)
        self.b = nn.Conv2d(outputs, 32, 3, padding=1)
        self.c, self.d = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(self.function(self.a(x))))
        return self.head(F.relu(self.d(F.relu(self.c(x)))).mean((2, 3)))


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


def _rolled_part(x: Tensor) -> Tensor:
    u, v = _halves(x)
    return torch.cat([u.roll(1, 2), v], 1)


def _every_other(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    y[:, 0::2] = x[:, 0::2].sin()
    y[:, 1::2] = x[:, 1::2]
    return y


def _in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, : x.shape[1] // 4].tanh_()
    return x


def _in_place_literal(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 8:16] *= -0.5
    return x


def _unbound(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    first, second = x.view(b, 2, c // 2, h, w).unbind(1)
    return torch.cat([first.relu(), second.sigmoid()], 1)


def _shifted(x: Tensor) -> Tensor:
    parts = x.chunk(5, 1)
    moves = ((1, 2), (-1, 2), (1, 3), (-1, 3))
    return torch.cat([*(part.roll(*move) for part, move in zip(parts, moves, strict=False)), parts[4]], 1)


def _temporal(x: Tensor) -> Tensor:
    """Neighbours of a batch exchange a quarter of their channels."""
    c = x.shape[1] // 4
    before = torch.cat([torch.zeros_like(x[:1, :c]), x[:-1, :c]], 0)
    return torch.cat([before, x[:, c:]], 1)


def _grouped_gate(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    gate = torch.linspace(0.5, 2.0, 4, dtype=x.dtype).view(1, 4, 1, 1, 1)
    return (x.view(b, 4, c // 4, h, w) * gate).view(b, c, h, w)


def _group_stat(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    groups = x.view(b, 8, -1, h, w)
    return (groups / (groups.std(2, keepdim=True) + 1e-3)).view(b, c, h, w)


def _maxout(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c // 2, 2, h, w).max(2)[0]


def _shuffle_of(groups: int, transposed: bool) -> Callable[[Tensor], Tensor]:
    def shuffle(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        shape = (b, c // groups, groups, h, w) if transposed else (b, groups, c // groups, h, w)
        return x.view(shape).transpose(1, 2).contiguous().view(b, -1, h, w)

    return shuffle


def half_relu() -> nn.Module:
    """One half passes a ReLU."""
    return Between(lambda x: (lambda u, v: torch.cat([F.relu(u), v], 1))(*x.chunk(2, 1)))


def half_pooled() -> nn.Module:
    """Half is pooled by the maximum, half by the mean."""
    return Between(lambda x: (lambda u, v: torch.cat([F.max_pool2d(u, 2), F.avg_pool2d(v, 2)], 1))(*_halves(x)))


def literal_part() -> nn.Module:
    """A literal number of channels passes a tanh."""
    return Between(lambda x: torch.cat([x[:, :12].tanh(), x[:, 12:]], 1))


def literal_split() -> nn.Module:
    """Three parts of written-out widths."""

    def function(x: Tensor) -> Tensor:
        u, v, w = torch.split(x, [8, 8, 16], 1)
        return torch.cat([u.relu(), v.sigmoid(), w], 1)

    return Between(function)


def rolled_part() -> nn.Module:
    """One half moves by a row."""
    return Between(_rolled_part)


def every_other() -> nn.Module:
    """Every other channel passes a sine."""
    return Between(_every_other)


def in_place_share() -> nn.Module:
    """A quarter changes in place."""
    return Between(_in_place)


def in_place_literal() -> nn.Module:
    """Channels 8 to 15 change in place."""
    return Between(_in_place_literal)


def unbound() -> nn.Module:
    """Halves by view and unbind."""
    return Between(_unbound)


def shift_conv() -> nn.Module:
    """Five parts, four of them shifted in space."""
    return Between(_shifted)


def temporal_shift() -> nn.Module:
    """A quarter of the channels comes from the picture before."""
    return Between(_temporal)


def grouped_gate() -> nn.Module:
    """A constant for each of four groups, by a view."""
    return Between(_grouped_gate)


def group_statistic() -> nn.Module:
    """A deviation for each of eight groups, by a view."""
    return Between(_group_stat)


def maxout() -> nn.Module:
    """The larger of neighbours."""
    return Between(_maxout, 48, 24)


def crelu() -> nn.Module:
    """Both signs, each rectified."""
    return Between(lambda x: torch.cat([F.relu(x), F.relu(-x)], 1), 24, 48)


def glu() -> nn.Module:
    """Half gates the other half."""
    return Between(lambda x: F.glu(x, 1), 48, 24)


def gate_product() -> nn.Module:
    """Gated by chunks, the simple gate of restoration nets."""
    return Between(lambda x: (lambda u, v: u * v)(*x.chunk(2, 1)), 48, 24)


def shuffle_by_group() -> nn.Module:
    """Channel shuffle, then halves that part."""
    return Between(lambda x: _rolled_part(_shuffle_of(4, False)(x)))


def shuffle_by_number() -> nn.Module:
    """The inverse shuffle by a transposed view."""
    return Between(lambda x: _rolled_part(_shuffle_of(4, True)(x)))


def shuffle_function() -> nn.Module:
    """PyTorch's own shuffle."""
    return Between(lambda x: F.channel_shuffle(x, 4))


def flipped() -> nn.Module:
    """The channels in reverse, added to themselves."""
    return Between(lambda x: x + x.flip(1))


def rolled_channels() -> nn.Module:
    """Each channel gates its fourth neighbour."""
    return Between(lambda x: x * x.roll(4, 1).sigmoid())


class Res2(nn.Module):
    """Parts of a stored width, each added to the next before its convolution."""

    def __init__(self, width: int = 12, scale: int = 4) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.expand = nn.Sequential(nn.Conv2d(32, width * scale, 1), nn.BatchNorm2d(width * scale), nn.ReLU())
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(scale - 1))
        self.project = nn.Conv2d(width * scale, 32, 1)
        self.head = nn.Conv2d(32, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        parts = torch.split(self.expand(x), self.width, 1)
        done = [parts[0]]
        for number, conv in enumerate(self.convs, 1):
            done.append(F.relu(conv(parts[number] + (done[-1] if number > 1 else 0))))
        return self.head(F.relu(x + self.project(torch.cat(done, 1)))).mean((2, 3))


class Ghost(nn.Module):
    """Half of the features from a cheap depthwise convolution, cut to a stored number."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.oup = o
        half = (o + 1) // 2
        self.primary = nn.Sequential(nn.Conv2d(i, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.cheap = nn.Sequential(nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half))

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], dim=1)[:, : self.oup, :, :]


def ghost() -> nn.Module:
    """Ghost modules with an even and an odd width."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), Ghost(24, 48), Ghost(48, 39), nn.ReLU()),
        *(Ghost(39, 48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 6)),
    )


class PartialConv(nn.Module):
    """A stored share of the channels is convolved, the rest passes (FasterNet)."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.part = c // 4
        self.rest = c - self.part
        self.stem = nn.Conv2d(3, c, 3, padding=1)
        self.conv = nn.Conv2d(self.part, self.part, 3, padding=1, bias=False)
        self.mlp = nn.Sequential(nn.Conv2d(c, 2 * c, 1), nn.BatchNorm2d(2 * c), nn.GELU(), nn.Conv2d(2 * c, c, 1))
        self.head = nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first, second = torch.split(x, [self.part, self.rest], dim=1)
        x = x + self.mlp(torch.cat((self.conv(first), second), 1))
        return self.head(x.mean((2, 3)))


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "splits",
    *((build, SHAPE, "parts") for build in (half_relu, half_pooled, rolled_part, every_other, in_place_share, unbound)),
    *((build, SHAPE, "literal") for build in (literal_part, literal_split, in_place_literal)),
    *((build, SHAPE, "parts") for build in (shift_conv, temporal_shift, grouped_gate, group_statistic, maxout, crelu)),
    *((build, SHAPE) for build in (glu, gate_product, shuffle_by_group, shuffle_by_number, shuffle_function)),
    *((build, SHAPE) for build in (flipped, rolled_channels, ghost)),
    *((build, SHAPE, "stored width") for build in (Res2, PartialConv)),
)
