"""Blocks of published papers that people paste into their nets: attention modules, filters, computed kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class Trunk(nn.Module):
    """Two convolutions, the block, a convolution, a classifier."""

    def __init__(self, block: nn.Module, c: int = 32, read: int = 32) -> None:
        super().__init__()
        self.stem, self.grow = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, c, 3, padding=1)
        self.block, self.after, self.head = block, nn.Conv2d(read, 32, 3, padding=1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(F.relu(self.grow(F.relu(self.stem(x)))))
        return self.head(F.relu(self.after(x)).mean((2, 3)))


class Blur(nn.Module):
    """A fixed low-pass filter, stored for every channel."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (row[:, None] * row / 16)[None, None].repeat(c, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class BlurExpanded(nn.Module):
    """One fixed filter, expanded to as many channels as come."""

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (row[:, None] * row / 16)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        return F.conv2d(x, self.filt.expand(c, 1, 3, 3), padding=1, groups=c)


class EdgesStored(nn.Module):
    """A learnt filter, repeated to a stored number of channels."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.channels, self.kernel = c, nn.Parameter(torch.randn(1, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel.repeat(self.channels, 1, 1, 1), padding=1, groups=self.channels)


class Haar(nn.Module):
    """A wavelet transform by strides: four bands of all channels."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = x[:, :, ::2, ::2], x[:, :, 1::2, ::2], x[:, :, ::2, 1::2], x[:, :, 1::2, 1::2]
        return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


class Involution(nn.Module):
    """A kernel for every place and group of channels, on unfolded patches."""

    def __init__(self, c: int = 32, groups: int = 4, k: int = 3) -> None:
        super().__init__()
        self.groups, self.k = groups, k
        self.reduce, self.span = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, k * k * groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernel = self.span(F.relu(self.reduce(x))).view(b, self.groups, 1, self.k**2, h, w)
        patches = F.unfold(x, self.k, padding=1).view(b, self.groups, c // self.groups, self.k**2, h, w)
        return (kernel * patches).sum(3).view(b, c, h, w)


class MultiScaleGate(nn.Module):
    """Groups of channels in the batch, gates along rows and columns and from one group norm (EMA attention)."""

    def __init__(self, c: int = 32, groups: int = 4) -> None:
        super().__init__()
        self.groups, part = groups, c // groups
        self.norm, self.one = nn.GroupNorm(part, part), nn.Conv2d(part, part, 1)
        self.three = nn.Conv2d(part, part, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.size()
        g = x.reshape(b * self.groups, -1, h, w)
        rows, columns = g.mean(3, keepdim=True), g.mean(2, keepdim=True).permute(0, 1, 3, 2)
        rows, columns = torch.split(self.one(torch.cat([rows, columns], 2)), [h, w], 2)
        a = self.norm(g * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid())
        y = self.three(g)
        u = a.mean((2, 3), keepdim=True).flatten(2).permute(0, 2, 1).softmax(-1) @ y.flatten(2)
        v = y.mean((2, 3), keepdim=True).flatten(2).permute(0, 2, 1).softmax(-1) @ a.flatten(2)
        return (g * (u + v).reshape(-1, 1, h, w).sigmoid()).reshape(b, c, h, w)


class ShuffleAttention(nn.Module):
    """Groups in the batch, halves with gates of their own parameters, a shuffle."""

    def __init__(self, c: int = 32, groups: int = 4) -> None:
        super().__init__()
        self.groups, part = groups, c // (2 * groups)
        self.cw, self.cb = nn.Parameter(torch.zeros(1, part, 1, 1)), nn.Parameter(torch.ones(1, part, 1, 1))
        self.sw, self.sb = nn.Parameter(torch.zeros(1, part, 1, 1)), nn.Parameter(torch.ones(1, part, 1, 1))
        self.norm = nn.GroupNorm(part, part)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        one, two = x.reshape(b * self.groups, -1, h, w).chunk(2, 1)
        one = one * (self.cw * one.mean((2, 3), keepdim=True) + self.cb).sigmoid()
        two = two * (self.sw * self.norm(two) + self.sb).sigmoid()
        out = torch.cat([one, two], 1).reshape(b, -1, h, w)
        return out.reshape(b, 2, -1, h, w).permute(0, 2, 1, 3, 4).reshape(b, -1, h, w)


class OmniDynamic(nn.Module):
    """Attention over inputs, outputs and kernels of one convolution (ODConv)."""

    def __init__(self, i: int = 32, o: int = 32, kernels: int = 3) -> None:
        super().__init__()
        self.i, self.o, self.weight = i, o, nn.Parameter(torch.randn(kernels, o, i, 3, 3) * 0.05)
        self.fc, self.to_i, self.to_o = nn.Conv2d(i, 8, 1), nn.Conv2d(8, i, 1), nn.Conv2d(8, o, 1)
        self.to_k = nn.Conv2d(8, kernels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        s = F.relu(self.fc(x.mean((2, 3), keepdim=True)))
        kernel = self.to_k(s).view(b, -1, 1, 1, 1, 1).softmax(1)
        weight = (kernel * self.weight.unsqueeze(0)).sum(1).view(-1, self.i, 3, 3)
        x = (x * self.to_i(s).sigmoid()).reshape(1, -1, h, w)
        return F.conv2d(x, weight, padding=1, groups=b).view(b, self.o, h, w) * self.to_o(s).sigmoid()


class Spectral(nn.Module):
    """A product with learnt complex weights on the lowest frequencies (Fourier neural operator)."""

    def __init__(self, i: int = 32, o: int = 32, modes: int = 4) -> None:
        super().__init__()
        self.o, self.m = o, modes
        self.weight = nn.Parameter(torch.randn(i, o, modes, modes, 2) / i)
        self.skip = nn.Conv2d(i, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum, weight = torch.fft.rfft2(x), torch.view_as_complex(self.weight)
        out = torch.zeros(len(x), self.o, x.shape[2], x.shape[3] // 2 + 1, dtype=spectrum.dtype)
        out[:, :, : self.m, : self.m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, : self.m, : self.m], weight)
        return F.gelu(torch.fft.irfft2(out, s=x.shape[-2:]) + self.skip(x))


class StateSpace(nn.Module):
    """A selective state space, scanned along places."""

    def __init__(self, c: int = 32, n: int = 4, rank: int = 2) -> None:
        super().__init__()
        self.n, self.rank = n, rank
        self.conv, self.project = nn.Conv1d(c, c, 3, padding=2, groups=c), nn.Linear(c, rank + 2 * n, bias=False)
        self.dt, self.log_a = nn.Linear(rank, c), nn.Parameter(torch.rand(c, n))
        self.skip, self.out = nn.Parameter(torch.ones(c)), nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        u = F.silu(self.conv(x.flatten(2))[..., : h * w]).transpose(1, 2)
        dt, gate, read = self.project(u).split([self.rank, self.n, self.n], -1)
        dt, a = F.softplus(self.dt(dt)), -torch.exp(self.log_a)
        state, steps = x.new_zeros(b, c, self.n), []
        for t in range(0, h * w, 12):
            state = state * torch.exp(dt[:, t, :, None] * a) + (dt[:, t] * u[:, t])[..., None] * gate[:, t, None]
            steps.append((state * read[:, t, None]).sum(-1))
        y = torch.stack(steps, 1) + self.skip * u[:, ::12]
        return self.out(y).transpose(1, 2).unsqueeze(-1)


class Mixture(nn.Module):
    """Experts of perceptrons, the best two of each place weighted."""

    def __init__(self, c: int = 32, experts: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(c, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        score = self.gate(y).softmax(-1)
        kept = score.topk(2, -1)[0][..., -1:]
        score = torch.where(score >= kept, score, torch.zeros_like(score))
        outs = torch.stack([expert(y) for expert in self.experts], -1)
        return x + (outs * score.unsqueeze(2)).sum(-1).transpose(1, 2).reshape_as(x)


class FasterSlices(nn.Module):
    """A quarter of the channels is convolved in place of the clone (partial convolution, inference form)."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.dim = c // 4
        self.conv, self.mlp = nn.Conv2d(self.dim, self.dim, 3, padding=1), nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, : self.dim, :, :] = self.conv(y[:, : self.dim, :, :])
        return x + self.mlp(F.gelu(y))


class Coupling(nn.Module):
    """One half sets scale and shift of the other, turn about (a normalizing flow)."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Conv2d(c // 2, c, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for net in self.nets:
            a, b = x.chunk(2, 1)
            scale, shift = net(a).chunk(2, 1)
            x = torch.cat([b * scale.tanh().exp() + shift, a], 1)
        return x


class Latents(nn.Module):
    """Learnt latents read the map by attention, and the map reads them."""

    def __init__(self, c: int = 32, heads: int = 4, n: int = 6) -> None:
        super().__init__()
        self.latents, self.norm = nn.Parameter(torch.randn(1, n, c)), nn.LayerNorm(c)
        self.read = nn.MultiheadAttention(c, heads, batch_first=True)
        self.write = nn.MultiheadAttention(c, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        z = self.latents.expand(len(x), -1, -1)
        z = z + self.read(self.norm(z), y, y, need_weights=False)[0]
        return x + self.write(y, z, z)[0].transpose(1, 2).reshape(x.shape)


class in_trunk:  # noqa: N801  # a builder like the functions beside it, which another process can be sent
    """A builder of `block` between plain layers."""

    def __init__(self, block: Callable[[], nn.Module], read: int = 32) -> None:
        self.block, self.read, self.__name__ = block, read, block.__name__

    def __call__(self) -> nn.Module:
        """The net."""
        return Trunk(self.block(), read=self.read)


SHAPE = (2, 3, 12, 12)
FILTERS, GATES = (Blur, BlurExpanded, EdgesStored), (Involution, MultiScaleGate, ShuffleAttention)
LAYERS = (OmniDynamic, Spectral, StateSpace, Mixture, FasterSlices, Coupling, Latents)
NETS: tuple[UserNet, ...] = nets(
    "modules",
    *((in_trunk(block), SHAPE) for block in (*FILTERS, *GATES, *LAYERS)),
    (in_trunk(Haar, read=128), SHAPE),
)
