"""Nets that mix places without attention, and convolutional nets in the manner of transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class MixerBlock(nn.Module):
    """Mixes tokens by a perceptron over the transposed sequence, then channels."""

    def __init__(self, dim: int, tokens: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.channels = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.n2(x))


class Mixer(nn.Module):
    """Patches, mixer blocks, mean."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch, self.blocks = nn.Conv2d(3, dim, 4, 4), nn.Sequential(MixerBlock(dim, 16), MixerBlock(dim, 16))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch(x).flatten(2).mT)).mean(1))


class Residual(nn.Module):
    """Adds the input to what a function makes of it."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def conv_mixer() -> nn.Module:
    """Depthwise and pointwise convolutions with GELU before norm."""
    dim = 32
    blocks = [
        nn.Sequential(
            Residual(nn.Sequential(nn.Conv2d(dim, dim, 5, groups=dim, padding="same"), nn.GELU(), nn.BatchNorm2d(dim))),
            *(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim)),
        )
        for _ in range(3)
    ]
    stem = (nn.Conv2d(3, dim, 2, 2), nn.GELU(), nn.BatchNorm2d(dim))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, 5))


class NextBlock(nn.Module):
    """Depthwise convolution, channels last, layer norm, response norm, layer scale."""

    def __init__(self, dim: int, respond: bool = False) -> None:
        super().__init__()
        self.dw, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.pw1, self.act, self.pw2 = nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim)
        self.respond = respond
        self.scale = nn.Parameter(1e-6 * torch.ones(dim))
        self.weight, self.bias = (nn.Parameter(torch.zeros(1, 1, 1, 3 * dim)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.pw1(self.norm(self.dw(x).permute(0, 2, 3, 1))))
        if self.respond:
            length = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
            y = self.weight * (y * (length / (length.mean(dim=-1, keepdim=True) + 1e-6))) + self.bias + y
        return x + (self.scale * self.pw2(y)).permute(0, 3, 1, 2)


class Next(nn.Module):
    """Two stages with a norm before down-sampling."""

    def __init__(self, respond: bool = False) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 24, 2, 2), NextBlock(24, respond)
        self.norm, self.down = nn.GroupNorm(1, 24), nn.Conv2d(24, 40, 2, 2)
        self.two, self.last, self.head = NextBlock(40, respond), nn.LayerNorm(40), nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.down(self.norm(self.one(self.stem(x)))))
        return self.head(self.last(x.mean([-2, -1])))


def next_plain() -> nn.Module:
    """Layer scale."""
    return Next()


def next_response() -> nn.Module:
    """Response norm inside each block."""
    return Next(respond=True)


class PoolBlock(nn.Module):
    """Mixes by pooling minus the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.GroupNorm(1, dim), nn.GroupNorm(1, dim)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mlp = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU(), nn.Conv2d(2 * dim, dim, 1))
        self.s1, self.s2 = (nn.Parameter(1e-5 * torch.ones(dim)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.n1(x)
        x = x + self.s1.unsqueeze(-1).unsqueeze(-1) * (self.pool(y) - y)
        return x + self.s2.unsqueeze(-1).unsqueeze(-1) * self.mlp(self.n2(x))


def pool_former() -> nn.Module:
    """Two stages of pooling blocks."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, 2, 1), PoolBlock(24), nn.Conv2d(24, 40, 3, 2, 1), PoolBlock(40)),
        *(nn.GroupNorm(1, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 5)),
    )


class SpatialGate(nn.Module):
    """Half of the features, mixed over tokens, gates the other half."""

    def __init__(self, dim: int = 32, hidden: int = 64, tokens: int = 16) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.Linear(hidden // 2, dim)
        self.inner, self.mix = nn.LayerNorm(hidden // 2), nn.Conv1d(tokens, tokens, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.up(self.norm(x))).chunk(2, dim=-1)
        return x + self.down(u * self.mix(self.inner(v)))


class GatedMlp(nn.Module):
    """Blocks with spatial gates."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.blocks = nn.Conv2d(3, 32, 4, 4), nn.Sequential(SpatialGate(), SpatialGate())
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class FourierMix(nn.Module):
    """The real part of a transform over places takes the place of attention."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch, self.n1, self.n2 = nn.Conv2d(3, dim, 2, 2), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.n1(x + torch.fft.fft(x, dim=1).real)
        return self.head(self.n2(x + self.mlp(x)).mean(1))


class Permute(nn.Module):
    """Mixes height and width by groups of channels written as views with a stored segment."""

    def __init__(self, dim: int = 32, size: int = 8, segment: int = 4) -> None:
        super().__init__()
        self.segment = segment
        self.stem, self.head = nn.Conv2d(3, dim, 2, 2), nn.Linear(dim, 5)
        mixed = size * dim // segment
        self.h, self.w, self.c = nn.Linear(mixed, mixed), nn.Linear(mixed, mixed), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        s = c // self.segment
        y = x.reshape(b, h, w, self.segment, s).permute(0, 3, 2, 1, 4).reshape(b, self.segment, w, h * s)
        y = self.h(y).reshape(b, self.segment, w, h, s).permute(0, 3, 2, 1, 4).reshape(b, h, w, c)
        z = x.reshape(b, h, w, self.segment, s).permute(0, 1, 3, 2, 4).reshape(b, h, self.segment, w * s)
        z = self.w(z).reshape(b, h, self.segment, w, s).permute(0, 1, 3, 2, 4).reshape(b, h, w, c)
        return self.head((x + self.proj(y + z + self.c(x))).mean((1, 2)))


class LinearAttention(nn.Module):
    """Attention without softmax over places, by two products; one head."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, dim, 3, 2, 1), nn.Conv2d(dim, 3 * dim, 1)
        self.out, self.head = nn.Conv2d(dim, dim, 1), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        context = k @ v.transpose(1, 2)  # (B, C, C)
        y = (context.transpose(1, 2) @ q) / (q * k.sum(-1, keepdim=True)).sum(1, keepdim=True)
        return self.head((x + self.out(y.view(b, c, h, w))).mean((2, 3)))


class Lite(nn.Module):
    """Convolution and transformer by unfolded patches of stored size, as in mobile hybrids."""

    def __init__(self, c: int = 24, dim: int = 32, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.stem, self.local = nn.Conv2d(3, c, 3, 2, 1), nn.Sequential(nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, dim, 1))
        self.norm, self.q, self.k, self.v = nn.LayerNorm(dim), *(nn.Linear(dim, dim) for _ in range(3))
        self.ff = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 64), nn.SiLU(), nn.Linear(64, dim))
        self.back, self.fuse, self.head = nn.Conv2d(dim, c, 1), nn.Conv2d(2 * c, c, 3, 1, 1), nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        y = self.local(x)
        b, d, h, w = y.shape
        p = self.patch
        y = y.reshape(b, d, h // p, p, w // p, p).permute(0, 3, 5, 2, 4, 1).reshape(b * p * p, -1, d)
        z = self.norm(y)
        y = y + F.scaled_dot_product_attention(self.q(z), self.k(z), self.v(z), scale=0.2)
        y = (y + self.ff(y)).reshape(b, p, p, h // p, w // p, d).permute(0, 5, 3, 1, 4, 2).reshape(b, d, h, w)
        return self.head(F.silu(self.fuse(torch.cat((x, self.back(y)), 1))).mean((2, 3)))


SHAPE = (2, 3, 16, 16)
NETS: tuple[UserNet, ...] = nets(
    "mixers",
    *((build, SHAPE) for build in (Mixer, conv_mixer, next_plain, pool_former, GatedMlp, Lite)),
    (next_response, SHAPE, "over channels"),
    (FourierMix, SHAPE, "fft"),
    (Permute, SHAPE, "parts"),
    (LinearAttention, SHAPE, "over channels"),
)
