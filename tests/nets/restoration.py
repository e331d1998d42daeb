"""Super-resolution, denoising and other nets from pictures to pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class SubPixel(nn.Module):
    """Tanh layers and a pixel shuffle at the end."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 32, 3, padding=1)
        self.c3 = nn.Conv2d(32, factor**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.c3(torch.tanh(self.c2(torch.tanh(self.c1(x))))))


class MeanShift(nn.Conv2d):
    """A fixed 1 x 1 convolution that takes the mean colour off."""

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, 1)
        self.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.bias.data = sign * torch.tensor([0.4, 0.4, 0.4])
        self.requires_grad_(False)


class ResidualSr(nn.Module):
    """Residual blocks without norm, a residual scale, pixel shuffle inside the net."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.sub, self.add = MeanShift(-1), MeanShift(1)
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(True), nn.Conv2d(width, width, 3, 1, 1))
            for _ in range(3)
        )
        self.up = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.head(self.sub(x))
        for block in self.body:
            x = x + block(x).mul(0.1)
        return self.add(self.tail(self.up(x + first)))


class DenseResidual(nn.Module):
    """Dense blocks inside residual ones, scaled by 0.2, nearest up-sampling."""

    def __init__(self, width: int = 24, growth: int = 12) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width + n * growth, growth if n < 2 else width, 3, 1, 1) for n in range(3))
            for _ in range(2)
        )
        self.up, self.tail = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for one, two, three in self.blocks:
            a = F.leaky_relu(one(x), 0.2)
            b = F.leaky_relu(two(torch.cat((x, a), 1)), 0.2)
            x = x + 0.2 * three(torch.cat((x, a, b), 1))
        return self.tail(F.leaky_relu(self.up(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2))


class ChannelAttentionSr(nn.Module):
    """Channel attention in residual groups."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1))
            for _ in range(2)
        )
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 1), nn.Sigmoid()
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.head(x)
        for convs, gate in zip(self.convs, self.gates, strict=True):
            y = convs(x)
            x = x + y * gate(y)
        return self.tail(x + first)


class Distilling(nn.Module):
    """Each step keeps a stored number of channels aside and works on the rest."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.kept = width // 4
        self.rest = width - self.kept
        self.head = nn.Conv2d(3, width, 3, 1, 1)
        self.c1 = nn.Conv2d(width, width, 3, 1, 1)
        self.c2 = nn.Conv2d(self.rest, width, 3, 1, 1)
        self.c3 = nn.Conv2d(self.rest, self.kept, 3, 1, 1)
        self.join, self.tail = nn.Conv2d(3 * self.kept, width, 1), nn.Conv2d(width, 12, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.head(x)
        kept1, x = torch.split(F.leaky_relu(self.c1(x), 0.05), (self.kept, self.rest), dim=1)
        kept2, x = torch.split(F.leaky_relu(self.c2(x), 0.05), (self.kept, self.rest), dim=1)
        x = self.join(torch.cat([kept1, kept2, self.c3(x)], 1))
        return F.pixel_shuffle(self.tail(x + first), 2)


class Denoiser(nn.Module):
    """Predicts the noise, which is taken off the input."""

    def __init__(self, width: int = 24, depth: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.net(x)


class LayerNorm2d(nn.Module):
    """Layer norm over channels, written by hand for maps."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        middle = x.mean(1, keepdim=True)
        spread = (x - middle).pow(2).mean(1, keepdim=True)
        x = (x - middle) / (spread + 1e-6).sqrt()
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Gated(nn.Module):
    """The block of a restoration net with simple gates and simplified channel attention."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.n1, self.n2 = LayerNorm2d(c), LayerNorm2d(c)
        self.c1, self.dw = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c)
        self.sca, self.c3 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1)), nn.Conv2d(c, c, 1)
        self.c4, self.c5 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.beta, self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dw(self.c1(self.n1(x))).chunk(2, dim=1)
        y = a * b
        x = x + self.c3(y * self.sca(y)) * self.beta
        a, b = self.c4(self.n2(x)).chunk(2, dim=1)
        return x + self.c5(a * b) * self.gamma


def gated_restoration() -> nn.Module:
    """Two gated blocks, one at half resolution by pixel unshuffle."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, 1, 1), Gated(24), nn.PixelUnshuffle(2), nn.Conv2d(96, 48, 1), Gated(48)),
        *(nn.Conv2d(48, 96, 1), nn.PixelShuffle(2), nn.Conv2d(24, 3, 3, 1, 1)),
    )


class ChannelTransformer(nn.Module):
    """Attention between channels, heads of a stored number, a temperature per head (Restormer)."""

    def __init__(self, c: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.head, self.norm = nn.Conv2d(3, c, 3, 1, 1), nn.GroupNorm(1, c)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.dw = nn.Conv2d(c, 3 * c, 1), nn.Conv2d(3 * c, 3 * c, 3, 1, 1, groups=3 * c)
        self.project, self.tail = nn.Conv2d(c, c, 1), nn.Conv2d(c, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        b, c, h, w = x.shape
        q, k, v = self.dw(self.qkv(self.norm(x))).chunk(3, dim=1)
        q, k, v = (t.reshape(b, self.heads, c // self.heads, h * w) for t in (q, k, v))
        attention = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature).softmax(-1)
        return self.tail(x + self.project((attention @ v).reshape(b, c, h, w)))


class GuidedFilter(nn.Module):
    """Predicts a kernel for every place and applies it to unfolded patches."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k = k
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 24, 3, 1, 1), nn.GELU(), nn.Conv2d(24, 32, 3, 1, 1), nn.GELU(), nn.Conv2d(32, 9, 3, 1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernel = self.net(x).softmax(1).view(b, 1, self.k**2, h, w)
        patches = F.unfold(x, self.k, padding=1).view(b, c, self.k**2, h, w)
        return (kernel * patches).sum(2)


class Style(nn.Module):
    """Style transfer: reflection pads, instance norms, residual blocks, up-sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *(nn.ReflectionPad2d(2), nn.Conv2d(3, 16, 5), nn.InstanceNorm2d(16, affine=True), nn.ReLU()),
            *(nn.ReflectionPad2d(1), nn.Conv2d(16, 32, 3, 2), nn.InstanceNorm2d(32, affine=True), nn.ReLU()),
        )
        self.residual = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(32, 32, 3), nn.InstanceNorm2d(32, affine=True), nn.ReLU()),
            *(nn.ReflectionPad2d(1), nn.Conv2d(32, 32, 3), nn.InstanceNorm2d(32, affine=True)),
        )
        self.up = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(32, 16, 3), nn.InstanceNorm2d(16, affine=True))
        self.last = nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(16, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        x = x + self.residual(x)
        return self.last(F.relu(self.up(F.interpolate(x, scale_factor=2, mode="nearest")))).clamp(-3, 3)


SHAPE = (1, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "restoration",
    (SubPixel, (1, 1, 12, 12)),
    *((build, SHAPE) for build in (ResidualSr, DenseResidual, ChannelAttentionSr)),
    (Distilling, SHAPE, "stored width"),
    (Denoiser, (1, 1, 12, 12)),
    (gated_restoration, SHAPE, "over channels"),
    (ChannelTransformer, SHAPE, "stored heads"),
    (GuidedFilter, SHAPE),
    (Style, SHAPE),
)
