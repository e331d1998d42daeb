"""Nets whose last layers compare: cosines, distances, prototypes, bilinear products, soft assignments."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class BilinearPool(nn.Module):
    """The outer product of two towers, signed root, unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 16, 3, 1, 1)), None
        self.fc = nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).flatten(2)
        x = torch.bmm(x, x.transpose(1, 2)) / x.shape[2]
        x = x.view(len(x), -1)
        return self.fc(F.normalize(x.sign() * (x.abs() + 1e-6).sqrt()))


class BilinearLayer(nn.Module):
    """PyTorch's bilinear layer on two sets of features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(nn.Linear(12, 32), nn.ReLU()), nn.Sequential(nn.Linear(12, 24), nn.ReLU())
        self.mix, self.head = nn.Bilinear(32, 24, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, 1)
        return self.head(F.relu(self.mix(self.a(u), self.b(v))))


class CosineHead(nn.Module):
    """Cosines between features and class vectors, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU())
        self.more, self.classes = nn.Conv2d(32, 32, 3, 1, 1), nn.Parameter(torch.randn(5, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.more(self.net(x)).mean((2, 3))
        return 16.0 * F.linear(F.normalize(x), F.normalize(self.classes))


class CosinePair(nn.Module):
    """The cosine of two halves of a batch's pictures, and their distance."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU())
        self.embed = nn.Linear(32, 24)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(self.net(x).mean((2, 3)))
        a, b = z.chunk(2, 0)
        return torch.stack([F.cosine_similarity(a, b), F.pairwise_distance(a, b)], 1)


class Prototypes(nn.Module):
    """Distances to the mean features of labelled pictures in the same batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU())
        self.last = nn.Conv2d(32, 32, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.last(self.net(x)).amax((2, 3))
        support, query = z[:4].view(2, 2, -1).mean(1), z[4:]
        return -(query[:, None] - support[None]).pow(2).sum(-1)


class Residuals(nn.Module):
    """Residuals to cluster centres, softly assigned, summed per cluster (VLAD)."""

    def __init__(self, clusters: int = 4, dim: int = 24) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, dim, 3, 1, 1))
        self.assign, self.centers = nn.Conv2d(dim, clusters, 1), nn.Parameter(torch.rand(clusters, dim))
        self.fc = nn.Linear(clusters * dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        a, x = self.assign(x).flatten(2).softmax(1), x.flatten(2)
        v = (x[:, None] - self.centers[None, :, :, None]) * a[:, :, None]
        return self.fc(v.sum(-1).flatten(1))


class GeneralMean(nn.Module):
    """Pools by a generalized mean with a learnt exponent; whitens by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU())
        self.p, self.whiten = nn.Parameter(torch.ones(1) * 3), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.net(x).clamp(min=1e-6).pow(self.p), (6, 6)).pow(1.0 / self.p)
        return F.normalize(self.whiten(x.flatten(1)), p=2, dim=1)


class Experts(nn.Module):
    """A soft choice between perceptrons, stacked."""

    def __init__(self, dim: int = 32, experts: int = 3) -> None:
        super().__init__()
        self.stem, self.gate = nn.Linear(12, dim), nn.Linear(dim, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 48), nn.GELU(), nn.Linear(48, dim)) for _ in range(experts)
        )
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = torch.stack([expert(x) for expert in self.experts], 1)
        return self.head(x + (y * self.gate(x).softmax(-1).unsqueeze(-1)).sum(1))


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "metric",
    (BilinearPool, SHAPE, "over channels"),
    (BilinearLayer, (2, 24), "bilinear"),
    (CosineHead, SHAPE, "over channels"),
    (CosinePair, (4, 3, 12, 12), "over channels"),
    (Prototypes, (6, 3, 12, 12), "over channels"),
    (Residuals, SHAPE, "own parameters"),
    (Experts, (2, 12)),
    (GeneralMean, SHAPE),
)
