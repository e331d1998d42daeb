"""Nets whose weights are computed, masked, shared or added to before they are used."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from nets.catalogue import UserNet, nets


def classifier(*layers: nn.Module, width: int = 32) -> nn.Module:
    """Layers with ReLUs between them, pooled and classified."""
    between = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*between, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def conv(i: int, o: int) -> nn.Conv2d:
    """A padded convolution."""
    return nn.Conv2d(i, o, 3, padding=1)


def weight_norm_by_hooks() -> nn.Module:
    """The older weight norm."""
    return classifier(weight_norm(conv(3, 24)), weight_norm(conv(24, 32)), weight_norm(conv(32, 32)))


def weight_norm_parametrized() -> nn.Module:
    """The newer weight norm, a layer of which is transposed."""
    wn = parametrizations.weight_norm
    return classifier(wn(conv(3, 24)), wn(nn.ConvTranspose2d(24, 32, 2, 2)), wn(conv(32, 32)))


def pruned_weights() -> nn.Module:
    """Masks of PyTorch's own pruning, left in place."""
    net = classifier(conv(3, 24), conv(24, 32), conv(32, 32))
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            prune.l1_unstructured(layer, "weight", 0.4)
    return net


def pruned_rows() -> nn.Module:
    """Whole filters masked."""
    net = classifier(conv(3, 24), conv(24, 32), conv(32, 32))
    prune.ln_structured(net[2], "weight", 0.25, n=2, dim=0)
    prune.random_unstructured(net[4], "bias", 0.5)
    return net


def orthogonal() -> nn.Module:
    """A linear layer that is kept orthogonal by parametrization."""
    return nn.Sequential(
        *(conv(3, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 48), nn.ReLU()),
        *(parametrizations.orthogonal(nn.Linear(48, 32)), nn.ReLU(), nn.Linear(32, 5)),
    )


class Symmetric(nn.Module):
    """Makes a kernel symmetric in space."""

    def forward(self, w: Tensor) -> Tensor:
        return (w + w.flip(-1)) / 2


def own_parametrization() -> nn.Module:
    """A parametrization that the user wrote."""
    net = classifier(conv(3, 24), conv(24, 32), conv(32, 32))
    for number in (0, 2, 4):
        parametrize.register_parametrization(net[number], "weight", Symmetric())
    return net


class LowRank(nn.Module):
    """A frozen linear layer plus a product of two thin ones."""

    def __init__(self, base: nn.Linear, rank: int = 4, alpha: float = 8.0) -> None:
        super().__init__()
        self.base, self.scaling = base.requires_grad_(False), alpha / rank
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) * 0.1)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (x @ self.lora_a.t() @ self.lora_b.t()) * self.scaling


class LowRankMerged(LowRank):
    """The same, but the sum of weights is made first."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.base.weight + self.lora_b @ self.lora_a * self.scaling, self.base.bias)


def adapters(kind: type[LowRank]) -> nn.Module:
    """A perceptron on pooled features with adapters."""
    return nn.Sequential(
        *(conv(3, 24), nn.ReLU(), conv(24, 24), nn.ReLU(), conv(24, 16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), kind(nn.Linear(64, 48)), nn.ReLU()),
        *(kind(nn.Linear(48, 48)), nn.ReLU(), kind(nn.Linear(48, 5))),
    )


def lora() -> nn.Module:
    """Adapters as products."""
    return adapters(LowRank)


def lora_merged() -> nn.Module:
    """Adapters as weights."""
    return adapters(LowRankMerged)


class Standardized(nn.Conv2d):
    """Weight standardization."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = w - w.mean(dim=(1, 2, 3), keepdim=True)
        w = w / (w.flatten(1).std(dim=1).view(-1, 1, 1, 1) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


def weight_standardization() -> nn.Module:
    """Standardized convolutions with group norms."""
    return nn.Sequential(
        *(Standardized(3, 24, 3, 1, 1), nn.GroupNorm(4, 24), nn.ReLU(), Standardized(24, 32, 3, 2, 1)),
        *(nn.GroupNorm(4, 32), nn.ReLU(), Standardized(32, 32, 3, 1, 1), nn.GroupNorm(4, 32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)),
    )


class Masked(nn.Conv2d):
    """A convolution that sees only what lies above and to the left."""

    def __init__(self, i: int, o: int, first: bool) -> None:
        super().__init__(i, o, 3, padding=1)
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 1 + (not first) :] = 0
        mask[:, :, 2:] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(x)


class MaskedFunctional(Masked):
    """The same, without changing the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)


def pixel_by_pixel() -> nn.Module:
    """Masked convolutions that change their own weight, as in published code."""
    return nn.Sequential(Masked(1, 24, True), nn.ReLU(), Masked(24, 32, False), nn.ReLU(), nn.Conv2d(32, 4, 1))


def pixel_by_pixel_functional() -> nn.Module:
    """Masked convolutions that multiply."""
    layers = (MaskedFunctional(1, 24, True), nn.ReLU(), MaskedFunctional(24, 32, False), nn.ReLU())
    return nn.Sequential(*layers, MaskedFunctional(32, 32, False), nn.ReLU(), nn.Conv2d(32, 4, 1))


class Conditional(nn.Module):
    """The kernel is a mixture of experts chosen by each sample."""

    def __init__(self, i: int, o: int, experts: int = 3) -> None:
        super().__init__()
        self.i, self.o = i, o
        self.weight, self.route = nn.Parameter(torch.randn(experts, o, i, 3, 3) * 0.1), nn.Linear(i, experts)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        mixed = torch.einsum("be,eoikl->boikl", self.route(x.mean((2, 3))).sigmoid(), self.weight)
        y = F.conv2d(x.reshape(1, -1, h, w), mixed.reshape(b * self.o, self.i, 3, 3), padding=1, groups=b)
        return y.view(b, self.o, h, w)


def conditional() -> nn.Module:
    """Two conditional layers between plain ones."""
    return classifier(conv(3, 24), Conditional(24, 32), conv(32, 32))


class Branches(nn.Module):
    """Three branches that are summed, as before their merge at deployment."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.three = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))
        self.one = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.identity = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(x) + self.one(x) + self.identity(x)


def mergeable() -> nn.Module:
    """Two blocks of branches."""
    return classifier(conv(3, 32), Branches(32), Branches(32))


class Binary(nn.Conv2d):
    """Signs of weights with a straight-through gradient, scaled by their mean length per filter."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        hard = torch.where(self.weight > 0, scale, -scale)
        return F.conv2d(x, (hard - self.weight).detach() + self.weight, self.bias, self.stride, self.padding)


def binary_weights() -> nn.Module:
    """Binary layers between full ones."""
    return classifier(conv(3, 24), Binary(24, 32, 3, 1, 1), Binary(32, 32, 3, 1, 1))


class Recurrent(nn.Module):
    """One block, called four times."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.stem, self.block, self.head = conv(3, c), nn.Sequential(conv(c, c), nn.ReLU()), nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(4):
            x = x + self.block(x)
        return self.head(x.mean((2, 3)))


class TiedDecoder(nn.Module):
    """An autoencoder whose decoder uses the encoder's matrices, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = nn.Linear(64, 48), nn.Linear(48, 24)
        self.b1, self.b2 = nn.Parameter(torch.zeros(48)), nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.e2(torch.relu(self.e1(x))))
        return F.linear(torch.relu(F.linear(h, self.e2.weight.t(), self.b1)), self.e1.weight.t(), self.b2)


SHAPE = (2, 3, 12, 12)
COMPUTED = (weight_norm_by_hooks, weight_norm_parametrized, pruned_weights, pruned_rows, orthogonal)
NETS: tuple[UserNet, ...] = nets(
    "weights",
    *((build, SHAPE, "computed weight") for build in (*COMPUTED, own_parametrization, lora, lora_merged)),
    *((build, SHAPE, "computed weight") for build in (weight_standardization, conditional, binary_weights)),
    *((build, (2, 1, 12, 12), "computed weight") for build in (pixel_by_pixel, pixel_by_pixel_functional)),
    (mergeable, SHAPE),
    (Recurrent, SHAPE, "shared"),
    (TiedDecoder, (2, 64), "shared"),
)
