"""More nets as people write them: layers of their own, attention, recurrent cells, tables, and what surrounds a net."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from nets.catalogue import UserNet, nets


class Classifier(nn.Module):
    """A trunk and a linear head; what lies between is a subclass's."""

    def __init__(self, width: int = 32, features: int = 32) -> None:
        super().__init__()
        self.stem, self.more = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, width, 3, padding=1)
        self.after, self.head = nn.Conv2d(width, features, 3, padding=1), nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(F.relu(self.more(F.relu(self.stem(x)))))
        return self.head(F.relu(self.after(x)).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        return x


def convs(layer: Callable[..., nn.Module], wrap: Callable[[nn.Module], nn.Module] = lambda one: one) -> nn.Module:
    """Three layers of a kind, and a head."""
    pairs = [nn.Sequential(wrap(layer(i, o, 3, padding=1)), nn.ReLU()) for i, o in ((3, 24), (24, 32), (32, 32))]
    return nn.Sequential(*pairs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), wrap(nn.Linear(32, 5)))


class EqualizedByInputs(nn.Conv2d):
    """The weight is scaled by the number of inputs that the layer keeps."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * math.sqrt(2 / (self.in_channels * 9)), self.bias, padding=1)


class ScalesItsInput(nn.Conv2d):
    """The input is scaled by its width."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * math.sqrt(2 / (x.shape[1] * 9)))


class ScalesItsResult(nn.Conv2d):
    """The result is scaled by its width."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y / y.shape[1] ** 0.5


class CenteredWeight(nn.Conv2d):
    """A weight of mean zero, over the root of how many numbers a row has."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / math.sqrt(weight[0].numel()), self.bias, padding=1)


def equalized_by_inputs() -> nn.Module:
    """Equalized convolutions that look at their own attribute."""
    return convs(EqualizedByInputs)


def scaled_inputs() -> nn.Module:
    """Convolutions that scale what they read."""
    return convs(ScalesItsInput)


def scaled_results() -> nn.Module:
    """Convolutions that scale what they make."""
    return convs(ScalesItsResult)


def centered_weights() -> nn.Module:
    """Weights that are centered and scaled."""
    return convs(CenteredWeight)


def one_norm_for_all() -> nn.Module:
    """Weight norm with one length for a whole layer."""
    return convs(nn.Conv2d, lambda layer: weight_norm(layer, dim=None))


def norm_of_columns() -> nn.Module:
    """Weight norm of the inputs."""
    return convs(nn.Conv2d, lambda layer: parametrizations.weight_norm(layer, dim=1))


def two_norms() -> nn.Module:
    """Weight norm on convolutions, spectral norm on the head."""
    kinds = {nn.Conv2d: weight_norm, nn.Linear: spectral_norm}
    return convs(nn.Conv2d, lambda layer: kinds[type(layer)](layer))


def orthogonal() -> nn.Module:
    """Orthogonal weights by parametrization."""
    return convs(nn.Conv2d, parametrizations.orthogonal)


def pruned_twice() -> nn.Module:
    """Masks of two kinds, one after the other."""
    return convs(
        nn.Conv2d, lambda one: prune.random_unstructured(prune.l1_unstructured(one, "weight", 0.3), "weight", 0.3)
    )


class ScaledAttention(nn.Module):
    """Attention by PyTorch's own function, a stored number of heads, the size of a head left open."""

    def __init__(self, dim: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.stem = heads, nn.Conv2d(3, dim, 4, 4)
        self.qkv, self.proj, self.head = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*x.shape[:2], -1)
        return self.head((x + self.proj(y)).mean(1))


class SharedKeys(nn.Module):
    """Attention whose keys and values serve several heads each."""

    def __init__(self, dim: int = 32, heads: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.dim, self.stem = heads, groups, dim // heads, nn.Conv2d(3, dim, 4, 4)
        self.q, self.k, self.v = (
            nn.Linear(dim, dim),
            nn.Linear(dim, groups * self.dim),
            nn.Linear(dim, groups * self.dim),
        )
        self.o, self.head = nn.Linear(dim, dim), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.dim).transpose(1, 2)
        k, v = (
            layer(x).view(b, n, self.groups, self.dim).transpose(1, 2).repeat_interleave(self.heads // self.groups, 1)
            for layer in (self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return self.head((x + self.o(y)).mean(1))


class RootOfKeys(nn.Module):
    """One head, divided by the root of the width of its keys."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, 4)
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in "qkv")
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        k = self.k(x)
        return self.head((x + (self.q(x) @ k.mT / math.sqrt(k.size(-1))).softmax(-1) @ self.v(x)).mean(1))


class Decoder(nn.Module):
    """Learned queries read a picture through PyTorch's decoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.queries = nn.Conv2d(3, 32, 4, 4), nn.Parameter(torch.randn(5, 32))
        self.layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.queries.expand(len(x), -1, -1), self.stem(x).flatten(2).mT))


class PositionTable(nn.Module):
    """A table of more positions than a picture has."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, dim, 4, 4), nn.Linear(dim, 32), nn.Linear(32, 5)
        self.register_buffer("positions", torch.randn(1, 50, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        return self.head(F.relu(self.body(x + self.positions[:, : x.size(1)])).mean(1))


class Cells(Classifier):
    """A cell reads rows; its first state comes from the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.start = nn.LSTMCell(32, 16), nn.Linear(32, 16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.after(F.relu(self.more(F.relu(self.stem(x))))))
        h = self.start(x.mean((2, 3)))
        c = torch.zeros_like(h)
        for row in x.mean(2).unbind(2)[:4]:
            h, c = self.cell(row, (h, c))
        return self.last(h)


class Subscripts(nn.Module):
    """Products by subscripts with an ellipsis, and of three factors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(3, 32, 1)
        self.first, self.second = nn.Parameter(torch.randn(24, 32) * 0.2), nn.Parameter(torch.randn(32, 16) * 0.2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(torch.einsum("...c,cd->...d", F.relu(self.stem(x)).movedim(1, -1), self.first))
        y = torch.einsum("bhwc,bchw,cd->bd", y, self.gate(x).sigmoid(), self.second)
        return self.head(F.relu(y))


class MergedBranches(Classifier):
    """Two kernels and a norm merged into one convolution in the forward, its bias too."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.norm = nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32)
        self.large = nn.Conv2d(32, 32, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        weight = (self.large.weight + F.pad(self.small.weight, (1, 1, 1, 1))) * scale.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, self.large.bias + self.small.bias, padding=1)


class OwnFilters(Classifier):
    """A filter for each channel of each picture, made by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Linear(32, 32 * 9)

    def middle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernels = self.filters(x.mean((2, 3))).view(b * c, 1, 3, 3)
        return F.conv2d(x.reshape(1, b * c, h, w), kernels, padding=1, groups=b * c).view(b, c, h, w)


class OwnPlaces(Classifier):
    """A kernel for each place, the same for all channels, by unfold."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Conv2d(32, 9, 1)

    def middle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return (F.unfold(x, 3, padding=1).view(b, c, 9, h, w) * self.kernels(x).softmax(1)[:, None]).sum(2)


class RunningCenter(Classifier):
    """A buffer follows the means of the channels, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(32))

    def middle(self, x: Tensor) -> Tensor:
        self.center.mul_(0.9).add_(x.mean((0, 2, 3)).detach(), alpha=0.1)
        return F.relu(x - self.center.view(1, -1, 1, 1))


class SharedWeight(Classifier):
    """Two layers with norms of their own hold one parameter, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.two.weight = self.one.weight
        self.norms = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(2))

    def middle(self, x: Tensor) -> Tensor:
        for layer, norm in zip((self.one, self.two), self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return x


class Codebook(nn.Module):
    """The nearest of some codes, by written-out distances."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 1))
        self.codes = nn.Embedding(20, 8)
        self.decode = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x).movedim(1, -1)
        flat, codes = z.reshape(-1, z.shape[-1]), self.codes.weight
        away = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ codes.t() + codes.pow(2).sum(1)
        found = self.codes(away.argmin(1)).view_as(z)
        return self.decode((z + (found - z).detach()).movedim(-1, 1))


class FourierLayer(nn.Module):
    """Complex weights on the lowest frequencies."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.lift, self.beside = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1)
        self.modes = nn.Parameter(torch.randn(width, width, 3, 3, dtype=torch.cfloat) * 0.1)
        self.out, self.head = nn.Conv2d(width, 24, 1), nn.Conv2d(24, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        spectrum = torch.fft.rfft2(x)
        mixed = torch.zeros_like(spectrum)
        mixed[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :3, :3], self.modes)
        return self.head(F.relu(self.out(F.relu(torch.fft.irfft2(mixed, s=x.shape[-2:]) + self.beside(x)))))


def in_place_first() -> nn.Module:
    """The first layer writes into its input."""
    body = (nn.ReLU(inplace=True), nn.Conv2d(3, 24, 3), nn.ReLU(inplace=True), nn.Conv2d(24, 32, 3), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


class TakesItsType(Classifier):
    """The input is brought to the type that it has, autocast is switched off."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.stem.weight.dtype))


class ParallelPart(Classifier):
    """A part of the net is wrapped for several devices."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.DataParallel(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()))

    def middle(self, x: Tensor) -> Tensor:
        with torch.autograd.profiler.record_function("part"):
            return self.part(x)


class CompiledParts(Classifier):
    """A part and a function are compiled."""

    def __init__(self) -> None:
        super().__init__()
        part = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
        self.part: Any = torch.compile(part, backend="eager")
        self.gate: Any = torch.compile(lambda x: x * x.sigmoid(), backend="eager")

    def middle(self, x: Tensor) -> Tensor:
        return self.gate(self.part(x))


class OnePicture(nn.Module):
    """A forward without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Conv2d(24, 32, 3)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x).unsqueeze(0)).squeeze(0)
        return self.head(F.relu(self.b(F.relu(x))).mean((1, 2)))


SHAPE = (2, 3, 12, 12)
COMPUTED = (one_norm_for_all, norm_of_columns, two_norms, orthogonal, pruned_twice, MergedBranches)
ATTENTION = (ScaledAttention, SharedKeys, Decoder, PositionTable)
FILTERS = (OwnFilters, OwnPlaces, RunningCenter, SharedWeight)
SURROUNDED = (in_place_first, TakesItsType, ParallelPart, CompiledParts)
NETS: tuple[UserNet, ...] = nets(
    "written",
    *((build, SHAPE, "width number", "double") for build in (equalized_by_inputs, scaled_inputs, scaled_results)),
    *((build, SHAPE, "width number", "double") for build in (centered_weights, RootOfKeys)),
    *((build, SHAPE, "computed weight") for build in COMPUTED),
    *((build, SHAPE) for build in (*ATTENTION, *FILTERS, *SURROUNDED, Cells, Subscripts, Codebook, FourierLayer)),
    (OnePicture, (3, 12, 12)),
)
