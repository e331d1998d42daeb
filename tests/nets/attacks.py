"""Nets that differ in training or draw numbers, computed filters, codebooks, shifts, and more that an attack tried."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class Trunk(nn.Module):
    """Two convolutions, a subclass's middle, a convolution and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.more = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.after, self.head = nn.Conv2d(16, 12, 3, padding=1), nn.Linear(12, 5)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.more(F.relu(self.stem(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.after(self.middle(self.features(x)))).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        return x


class DropsChannels(Trunk):
    """Whole channels go while it trains, by a number that the module stores."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16

    def middle(self, x: Tensor) -> Tensor:
        return x * torch.empty(len(x), self.width, 1, 1).bernoulli_(0.9) if self.training else x


class MixesSamples(Trunk):
    """Samples are mixed while it trains, by a view with literal sizes."""

    def middle(self, x: Tensor) -> Tensor:
        return x + x.view(2, 16, 144).flip(0).view(2, 16, 12, 12) if self.training else x


class DropsBlocks(Trunk):
    """Regions go while it trains, by a mask of literal sizes."""

    def middle(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = 1 - F.max_pool2d(F.pad((torch.rand(len(x), 16, 10, 10) < 0.1).float(), (1, 1, 1, 1)), 3, 1, 1)
        return x * mask * mask.numel() / mask.sum().clamp(min=1)


class TrainsParts(Trunk):
    """Some channels pass another activation while it trains."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :5].sigmoid(), -x[:, 5:]], 1) if self.training else x


class AlwaysDrops(Trunk):
    """Dropout that goes on after training (Gal and Ghahramani, 2016)."""

    def middle(self, x: Tensor) -> Tensor:
        return F.dropout2d(F.dropout(x, 0.2, True), 0.1, True)


class Noisy(Trunk):
    """Random numbers of several kinds, added to and multiplied with all channels."""

    def middle(self, x: Tensor) -> Tensor:
        return (x + 0.1 * torch.randn_like(x)) * torch.empty_like(x).uniform_(0.9, 1.1) + torch.rand(x.shape)


class Gumbel(Trunk):
    """A random choice of one place, for each channel."""

    def middle(self, x: Tensor) -> Tensor:
        return x * F.gumbel_softmax(x, dim=-1)


class Spikes(Trunk):
    """Zeros and ones at random, passed straight through."""

    def middle(self, x: Tensor) -> Tensor:
        share = x.sigmoid()
        return share + (torch.bernoulli(share) - share).detach()


class CentralDifference(nn.Module):
    """A convolution less that of the sum of its kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        center = self.conv.weight.sum((2, 3))[:, :, None, None]
        return self.head(F.relu(self.conv(x) - 0.7 * F.conv2d(x, center)).mean((2, 3)))


class CentralKernel(CentralDifference):
    """The same by one kernel."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        center = F.pad(weight.sum((2, 3), keepdim=True), (1, 1, 1, 1))
        return self.head(F.relu(F.conv2d(F.relu(self.stem(x)), weight - 0.7 * center, None, 1, 1)).mean((2, 3)))


class Wavelet(nn.Module):
    """Fixed filters of each channel alone, which lies in the place of samples; and back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.last, signs = nn.Conv2d(8, 3, 3, padding=1), torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1]])
        self.filters = nn.Buffer(torch.cat([signs, signs.flip(0) * signs[1, [0, 2, 1, 3]]]).view(4, 1, 2, 2) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        b, c, h, w = x.shape
        bands = F.conv2d(x.reshape(b * c, 1, h, w), self.filters, stride=2).reshape(b, 4 * c, h // 2, w // 2)
        bands = (F.relu(self.middle(bands)) + bands).reshape(b * c, 4, h // 2, w // 2)
        return self.last(F.conv_transpose2d(bands, self.filters, stride=2).reshape(b, c, h, w) + x)


class CosineProduct(Trunk):
    """Angles to rows of a table, by a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(5, 16))

    def forward(self, x: Tensor) -> Tensor:
        return 30 * F.normalize(self.features(x).mean((2, 3))) @ F.normalize(self.rows).T


class Centers(CosineProduct):
    """Squared distances to rows of a table, by differences."""

    def forward(self, x: Tensor) -> Tensor:
        return -(self.features(x).mean((2, 3))[:, None] - self.rows[None]).pow(2).sum(-1)


class Reassembly(Trunk):
    """Up-sampling with kernels of its own at each place (Wang et al., "CARAFE", 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.kernels = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 36, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernels = F.pixel_shuffle(self.kernels(self.squeeze(x)), 2).softmax(1)
        windows = F.unfold(F.interpolate(x, scale_factor=2), 3, padding=1).view(b, c, 9, 2 * h, 2 * w)
        return torch.einsum("bkhw,bckhw->bchw", kernels, windows)


class Patched(Trunk):
    """Forwards put in place of others, by a function that holds one and by a method with one as its default."""

    def __init__(self) -> None:
        super().__init__()
        first, second = self.more.forward, self.after.forward

        def doubled(_layer: nn.Module, x: Tensor, old: Callable[[Tensor], Tensor] = second) -> Tensor:
            return old(x) * 2

        self.more.forward = lambda x: first(x).abs()
        self.after.forward = MethodType(doubled, self.after)


class Cached(Trunk):
    """Noise of one seed, kept from the first forward on."""

    def middle(self, x: Tensor) -> Tensor:
        if getattr(self, "noise", None) is None or self.noise.shape != x.shape[1:]:
            self.noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
        return x + self.noise


class ByWindows(Trunk):
    """A convolution as a product of filters and windows."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(16, 16, 3, 3) * 0.1)

    def middle(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return (self.filters.flatten(1) @ F.unfold(x, 3, padding=1)).view(b, -1, h, w)


class NetVlad(nn.Module):
    """Residuals to clusters, added up by soft assignment (Arandjelovic et al., 2016)."""

    def __init__(self, clusters: int = 4, width: int = 16) -> None:
        super().__init__()
        self.clusters = clusters
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3))
        self.assign, self.centers = nn.Conv2d(width, clusters, 1), nn.Parameter(torch.rand(clusters, width))
        self.head = nn.Linear(clusters * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(self.stem(x), dim=1)
        n, c = x.shape[:2]
        shares = self.assign(x).view(n, self.clusters, -1).softmax(1)
        places = x.view(n, c, -1).expand(self.clusters, -1, -1, -1).permute(1, 0, 2, 3)
        away = places - self.centers.expand(places.shape[-1], -1, -1).permute(1, 2, 0)[None]
        found = F.normalize((away * shares[:, :, None]).sum(-1), dim=2).view(n, -1)
        return self.head(F.normalize(found, dim=1))


class GroupMeans(Trunk):
    """Each group of channels less its mean, by a view."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 4

    def middle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        parts = x.view(b, self.groups, c // self.groups, h, w)
        return (parts - parts.mean(2, keepdim=True)).view(b, c, h, w)


class GroupPlaces(Trunk):
    """Each group of channels gated by how it agrees with its mean (Li et al., "SGE", 2019)."""

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.scale, self.shift = nn.Parameter(torch.randn(1, groups, 1, 1)), nn.Parameter(torch.randn(1, groups, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b * self.groups, -1, h, w)
        agrees = (x * x.mean((2, 3), keepdim=True)).sum(1).view(b * self.groups, -1)
        agrees = (agrees - agrees.mean(1, keepdim=True)) / (agrees.std(1, keepdim=True) + 1e-5)
        gate = (agrees.view(b, self.groups, h, w) * self.scale + self.shift).view(b * self.groups, 1, h, w)
        return (x * gate.sigmoid()).view(b, c, h, w)


class SumOverWidth(Trunk):
    """A mean over channels, written as a sum over their number."""

    def middle(self, x: Tensor) -> Tensor:
        return x - x.sum(1, keepdim=True) / x.shape[1]


class FanIn(nn.Conv2d):
    """Standardized over what a filter reads, and divided by the root of how much that is (Brock et al., 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        weight, axes = self.weight, (1, 2, 3)
        spread = (weight.var(axes, keepdim=True) * weight[0].numel()).clamp(min=1e-4)
        weight = (weight - weight.mean(axes, keepdim=True)) * spread.rsqrt()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def fan_in() -> nn.Module:
    """Three such layers."""
    layers = [nn.Sequential(FanIn(i, o, 3, padding=1), nn.ReLU()) for i, o in ((3, 16), (16, 24), (24, 16))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


class NearestCode(nn.Module):
    """The nearest rows of a table by products, passed straight through (van den Oord et al., "VQ-VAE", 2017)."""

    def __init__(self, codes: int = 8, width: int = 12) -> None:
        super().__init__()
        self.width, self.table = width, nn.Embedding(codes, width)
        self.encoder = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, width, 1))
        self.decoder = nn.Sequential(nn.Conv2d(width, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        b, _, h, w = x.shape
        rows, table = x.permute(0, 2, 3, 1).reshape(-1, self.width), self.table.weight
        away = rows.pow(2).sum(1, keepdim=True) + table.pow(2).sum(1) - 2 * rows @ table.t()
        near = self.table(away.argmin(1)).view(b, h, w, self.width).permute(0, 3, 1, 2)
        return self.decoder(x + (near - x).detach())


class ProductCodes(Trunk):
    """A table of codes for each part of the channels."""

    def __init__(self, parts: int = 2, codes: int = 8) -> None:
        super().__init__()
        self.parts, self.table = parts, nn.Parameter(torch.randn(parts, codes, 16 // parts))

    def middle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        near = torch.einsum("bgdn,gkd->bgkn", x.view(b, self.parts, c // self.parts, h * w), self.table).softmax(2)
        return torch.einsum("bgkn,gkd->bgdn", near, self.table).reshape(b, c, h, w)


class ShiftedPlaces(nn.Module):
    """Quarters of the channels shifted along one axis each, in place (Yu et al., "S2-MLP", 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.LayerNorm(16)
        self.a, self.b, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def shifted(self, x: Tensor) -> Tensor:
        y, q = x.clone(), x.shape[-1] // 4
        y[:, 1:, :, :q] = x[:, :-1, :, :q]
        y[:, :-1, :, q : 2 * q] = x[:, 1:, :, q : 2 * q]
        y[:, :, 1:, 2 * q : 3 * q] = x[:, :, :-1, 2 * q : 3 * q]
        y[:, :, :-1, 3 * q :] = x[:, :, 1:, 3 * q :]
        return y

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.b(self.shifted(F.gelu(self.a(self.norm(x)))))
        return self.head(x.mean((1, 2)))


class HeadScales(nn.Module):
    """A temperature and a scale for each head of an attention, by views."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.stem, self.head = heads, nn.Linear(12, width), nn.Linear(width, 5)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heat, self.scale = nn.Parameter(torch.ones(heads, 1, 1)), nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attention = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.heat).softmax(-1)
        y = attention @ v * self.scale.view(1, self.heads, 1, c // self.heads)
        return self.head(self.out(y.transpose(1, 2).reshape(b, n, c)).mean(1))


IMAGES = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "attacks",
    *((build, IMAGES, "training") for build in (DropsChannels, MixesSamples, DropsBlocks, TrainsParts)),
    *((build, IMAGES, "random") for build in (AlwaysDrops, Noisy, Gumbel, Spikes)),
    *((build, IMAGES) for build in (CentralDifference, CentralKernel, Wavelet, CosineProduct, Centers, Reassembly)),
    *((build, IMAGES) for build in (NetVlad, GroupMeans, GroupPlaces, SumOverWidth, fan_in, NearestCode)),
    *((build, IMAGES) for build in (ProductCodes, ShiftedPlaces, Patched, Cached, ByWindows)),
    (HeadScales, (2, 9, 12)),
)
