"""Residual, inception and dense nets, and the gates that people put into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


def conv_bn(i: int, o: int, k: int = 3, s: int = 1, g: int = 1) -> nn.Sequential:
    """A convolution without bias, and its batch norm."""
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o))


class Trunk(nn.Module):
    """A stem, some blocks on 32 channels, and a classifier."""

    def __init__(self, *blocks: nn.Module, width: int = 32, out: int = 32) -> None:
        super().__init__()
        self.stem = conv_bn(3, width)
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(out, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class Basic(nn.Module):
    """The basic residual block, with a gate on its branch."""

    def __init__(self, i: int, o: int, stride: int = 1, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.b = conv_bn(i, o, s=stride), conv_bn(o, o)
        self.gate = gate or nn.Identity()
        self.skip = conv_bn(i, o, 1, stride) if stride > 1 or i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.gate(self.b(F.relu(self.a(x)))) + self.skip(x))


class PaddedShortcut(nn.Module):
    """Option A of the first residual nets: stride by slicing, new channels by zero padding of a stored number."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.planes = o
        self.a, self.b = conv_bn(i, o, s=2), conv_bn(o, o)

    def forward(self, x: Tensor) -> Tensor:
        quarter = self.planes // 4
        skip = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return F.relu(self.b(F.relu(self.a(x))) + skip)


class PreActivation(nn.Module):
    """Norm and activation before each convolution, a shortcut from the activated input."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.n1, self.c1 = nn.BatchNorm2d(c), nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.n2, self.c2 = nn.BatchNorm2d(c), nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.c1(F.relu(self.n1(x)))
        return x + self.scale * self.c2(F.relu(self.n2(y)))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, projection."""

    def __init__(self, c: int, expand: int = 3) -> None:
        super().__init__()
        self.use_res_connect = True
        self.conv = nn.Sequential(
            *(conv_bn(c, c * expand, 1), nn.ReLU6(inplace=True)),
            *(conv_bn(c * expand, c * expand, g=c * expand), nn.Hardswish()),
            conv_bn(c * expand, c, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class Inception(nn.Module):
    """Four branches of different widths, joined."""

    def __init__(self, i: int) -> None:
        super().__init__()
        self.b1 = conv_bn(i, 16, 1)
        self.b2 = nn.Sequential(conv_bn(i, 12, 1), nn.ReLU(), conv_bn(12, 24))
        self.b3 = nn.Sequential(conv_bn(i, 8, 1), nn.ReLU(), conv_bn(8, 12, 5))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(i, 12, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([branch(x) for branch in (self.b1, self.b2, self.b3, self.b4)], dim=1))


class Dense(nn.Module):
    """Each layer reads all before it; a list of features grows."""

    def __init__(self, i: int, growth: int = 12, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(i + n * growth), nn.ReLU(), nn.Conv2d(i + n * growth, growth, 3, padding=1))
            for n in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class SqueezeExcite(nn.Module):
    """The gate of squeeze-and-excitation with linear layers and views by read sizes."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(c, c // 4), nn.ReLU(), nn.Linear(c // 4, c), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        return x * self.fc(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1).expand_as(x)


class Cbam(nn.Module):
    """A gate per channel, then one per place from the mean and maximum over channels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(c, c // 4, 1), nn.ReLU(), nn.Conv2d(c // 4, c, 1))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1)))
        both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.place(both))


class Eca(nn.Module):
    """A gate from a convolution over neighbouring channels."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
        return x * self.conv(y).transpose(-1, -2).unsqueeze(-1).sigmoid()


class ResponseNorm(nn.Module):
    """Global response normalization, channels first."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
        return self.gamma * (x * length / (length.mean(1, keepdim=True) + 1e-6)) + self.beta + x


class PlaceGate(nn.Module):
    """One gate for all channels of a place, from a convolution."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(c, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).sigmoid()


class Selective(nn.Module):
    """Two kernels, weighted per channel by a softmax over the two."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList((conv_bn(c, c, 3), conv_bn(c, c, 5)))
        self.squeeze = nn.Linear(c, 16)
        self.choose = nn.ModuleList((nn.Linear(16, c), nn.Linear(16, c)))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.stack([F.relu(path(x)) for path in self.paths], 1)  # (B, 2, C, H, W)
        squeezed = F.relu(self.squeeze(parts.sum(1).mean((2, 3))))
        weight = torch.stack([fc(squeezed) for fc in self.choose], 1).softmax(1)
        return (parts * weight[..., None, None]).sum(1)


class Coordinate(nn.Module):
    """Coordinate attention: pooled rows and columns share a convolution, then part again by a split."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.both = conv_bn(c, c // 2, 1)
        self.rows, self.columns = nn.Conv2d(c // 2, c, 1), nn.Conv2d(c // 2, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, _, h, w = x.shape
        pooled = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
        rows, columns = torch.split(F.hardswish(self.both(pooled)), [h, w], dim=2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid()


def plain_residual() -> nn.Module:
    """Three stages."""
    return Trunk(Basic(32, 32), Basic(32, 48, 2), Basic(48, 64, 2), out=64)


def option_a() -> nn.Module:
    """Zero-padded shortcuts."""
    return Trunk(Basic(16, 16), PaddedShortcut(16, 32), Basic(32, 32), PaddedShortcut(32, 64), width=16, out=64)


def pre_activation() -> nn.Module:
    """Pre-activation blocks with a scale that starts at zero."""
    return Trunk(PreActivation(32), PreActivation(32), nn.BatchNorm2d(32), nn.ReLU())


def inverted() -> nn.Module:
    """Inverted residual blocks."""
    return Trunk(Inverted(32), Inverted(32), conv_bn(32, 48, 1), out=48)


def inception() -> nn.Module:
    """Two inception modules."""
    return Trunk(Inception(32), nn.MaxPool2d(2), Inception(64), out=64)


def dense() -> nn.Module:
    """Two dense blocks and a transition."""
    return Trunk(Dense(32), nn.Conv2d(68, 34, 1), nn.AvgPool2d(2), Dense(34), out=70)


def squeeze_excite() -> nn.Module:
    """Gated residual blocks."""
    return Trunk(Basic(32, 32, gate=SqueezeExcite(32)), Basic(32, 48, 2, gate=SqueezeExcite(48)), out=48)


def cbam() -> nn.Module:
    """Channel and place gates."""
    return Trunk(Basic(32, 32, gate=Cbam(32)), Basic(32, 48, 2, gate=Cbam(48)), out=48)


def eca() -> nn.Module:
    """Gates from neighbouring channels, on the branches."""
    return Trunk(Basic(32, 32, gate=Eca()), Basic(32, 48, 2, gate=Eca()), conv_bn(48, 64, s=2), out=64)


def response_norm() -> nn.Module:
    """Norms over the lengths of all channels."""
    return Trunk(Basic(32, 32, gate=ResponseNorm(32)), Basic(32, 32, gate=ResponseNorm(32)))


def place_gate() -> nn.Module:
    """One gate a place."""
    return Trunk(Basic(32, 32, gate=PlaceGate(32)), Basic(32, 32, gate=PlaceGate(32)))


def selective() -> nn.Module:
    """Selective kernels."""
    return Trunk(Basic(32, 32, gate=Selective(32)), nn.MaxPool2d(2), Selective(32))


def coordinate() -> nn.Module:
    """Coordinate attention."""
    return Trunk(Basic(32, 32, gate=Coordinate(32)), Basic(32, 48, 2, gate=Coordinate(48)), out=48)


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "residual",
    *(
        (build, (2, 3, 12, 12))
        for build in (plain_residual, pre_activation, inverted, inception, dense, squeeze_excite)
    ),
    (option_a, SHAPE, "stored width"),
    *((build, SHAPE, "over channels") for build in (cbam, eca, response_norm)),
    *((build, SHAPE, "gate") for build in (place_gate, selective, coordinate)),
)
