"""Capsules, graphs, points, deformed layers, regions: what else people build."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d, roi_align

from nets.catalogue import UserNet, nets


class NonLocal(nn.Module):
    """Attention between all places through views of a stored width."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.inner = c // 2
        self.stem, self.out, self.head = nn.Conv2d(3, c, 3, 2, 1), nn.Conv2d(self.inner, c, 1), nn.Linear(c, 5)
        self.g, self.theta, self.phi = (nn.Conv2d(c, self.inner, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        b = x.size(0)
        g = self.g(x).view(b, self.inner, -1).permute(0, 2, 1)
        theta = self.theta(x).view(b, self.inner, -1).permute(0, 2, 1)
        attention = torch.matmul(theta, self.phi(x).view(b, self.inner, -1)).softmax(-1)
        y = torch.matmul(attention, g).permute(0, 2, 1).contiguous().view(b, self.inner, *x.size()[2:])
        return self.head((x + self.out(y)).mean((2, 3)))


class DualAttention(nn.Module):
    """Attention between places and between channels, each scaled by a number that starts at zero."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.stem, self.q, self.k = nn.Conv2d(3, c, 3, 2, 1), nn.Conv2d(c, c // 4, 1), nn.Conv2d(c, c // 4, 1)
        self.v, self.alpha, self.beta = nn.Conv2d(c, c, 1), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.last, self.head = nn.Conv2d(c, c, 3, 1, 1), nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        b, c, h, w = x.size()
        q, k = self.q(x).view(b, -1, h * w).permute(0, 2, 1), self.k(x).view(b, -1, h * w)
        places = torch.bmm(self.v(x).view(b, -1, h * w), torch.bmm(q, k).softmax(-1).permute(0, 2, 1)).view(b, c, h, w)
        flat = x.view(b, c, -1)
        energy = torch.bmm(flat, flat.permute(0, 2, 1))
        energy = torch.max(energy, -1, keepdim=True)[0].expand_as(energy) - energy
        channels = torch.bmm(energy.softmax(-1), flat).view(b, c, h, w)
        return self.head(F.relu(self.last(x + self.alpha * places + self.beta * channels)).mean((2, 3)))


class Capsules(nn.Module):
    """Primary capsules of eight numbers, squashed; routed twice by agreement to class capsules."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU())
        self.primary = nn.Conv2d(32, 32, 3, 2)
        self.weight = nn.Parameter(torch.randn(1, classes, 4, 8, 6) * 0.1)

    def squash(self, s: Tensor) -> Tensor:
        length = s.pow(2).sum(-1, keepdim=True)
        return s * length / ((1 + length) * (length + 1e-8).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        u = self.primary(self.stem(x))
        u = self.squash(u.view(len(x), 4, 8, -1).permute(0, 1, 3, 2).mean(2))  # (B, 4, 8)
        votes = (u[:, None, :, None, :] @ self.weight).squeeze(3)  # (B, classes, 4, 6)
        b = torch.zeros_like(votes[..., :1])
        for _ in range(2):
            v = self.squash((b.softmax(1) * votes).sum(2, keepdim=True))
            b = b + (votes * v).sum(-1, keepdim=True)
        return v.squeeze(2).norm(dim=-1)


class Graph(nn.Module):
    """Graph convolutions with an adjacency that comes with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = nn.Linear(6, 32), nn.Linear(32, 32, bias=False), nn.Linear(32, 4)
        self.bias = nn.Parameter(torch.zeros(32))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency.softmax(-1)
        x = F.relu(torch.bmm(a, self.w1(x)))
        return self.w3(F.relu(torch.matmul(a, self.w2(x)) + self.bias)).mean(1)


class GraphAttention(nn.Module):
    """Attention between nodes from a vector that is split in two."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.w, self.a = nn.Linear(6, dim, bias=False), nn.Parameter(torch.randn(2 * dim, 1) * 0.1)
        self.dim, self.mid, self.out = dim, nn.Linear(dim, dim), nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.w(x)
        e = F.leaky_relu(h @ self.a[: self.dim] + (h @ self.a[self.dim :]).transpose(1, 2), 0.2)
        return self.out(F.elu(self.mid(F.elu(e.softmax(-1) @ h))).mean(1))


class EdgePoints(nn.Module):
    """Points whose neighbours are found in feature space; features of edges, maximum over neighbours."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k = k
        self.c1, self.c2 = nn.Conv2d(6, 24, 1), nn.Conv2d(48, 32, 1)
        self.c3, self.head = nn.Conv1d(56, 48, 1), nn.Linear(48, 5)

    def edges(self, x: Tensor) -> Tensor:
        b = len(x)
        nearest = torch.cdist(x.mT, x.mT).topk(self.k, largest=False)[1]
        near = x.mT[torch.arange(b)[:, None, None], nearest]  # (B, N, k, C)
        middle = x.mT[:, :, None].expand(-1, -1, self.k, -1)
        return torch.cat((near - middle, middle), 3).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.c1(self.edges(x))).max(-1)[0]
        b = F.relu(self.c2(self.edges(a))).max(-1)[0]
        return self.head(F.relu(self.c3(torch.cat([a, b], 1))).amax(2))


class Points(nn.Module):
    """A transform of the points that the net itself predicts, then shared perceptrons and a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.t1, self.t2 = nn.Conv1d(3, 24, 1), nn.Linear(24, 9)
        self.c1, self.c2, self.c3 = nn.Conv1d(3, 32, 1), nn.Conv1d(32, 32, 1), nn.Conv1d(32, 64, 1)
        self.fc1, self.bn, self.fc2 = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        t = self.t2(F.relu(self.t1(x)).max(2)[0]).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        x = torch.bmm(x.transpose(2, 1), t).transpose(2, 1)
        x = torch.max(F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x)))))), 2, keepdim=True)[0].view(-1, 64)
        return self.fc2(F.relu(self.bn(self.fc1(x))))


class Deformed(nn.Module):
    """A deformable convolution, its offsets and masks from one convolution that is cut in three."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.stem, self.offset = nn.Conv2d(3, c, 3, 1, 1), nn.Conv2d(c, 27, 3, 1, 1)
        self.deform, self.last, self.head = DeformConv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, 1, 1), nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        a, b, mask = self.offset(x).chunk(3, 1)
        x = F.relu(self.deform(x, torch.cat((a, b), 1), mask.sigmoid()))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Transformer2d(nn.Module):
    """A spatial transformer: the net predicts where it looks."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU())
        self.fc_loc = nn.Sequential(nn.Linear(24 * 6 * 6, 24), nn.ReLU(), nn.Linear(24, 6))
        self.c1, self.c2, self.head = nn.Conv2d(1, 24, 3), nn.Conv2d(24, 32, 3), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.fc_loc(self.locate(x).view(-1, 24 * 6 * 6)).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, list(x.size()), align_corners=False), align_corners=False)
        return self.head(F.relu(self.c2(F.relu(self.c1(x)))).mean((2, 3)))


class Einsum(nn.Module):
    """Layers written with einsum, einsum alone."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(3, 32) * 0.3), nn.Parameter(torch.randn(32, 32) * 0.2)
        self.mix, self.out = nn.Parameter(torch.randn(16, 16) * 0.2), nn.Parameter(torch.randn(32, 5) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 3).flatten(2)
        x = F.relu(torch.einsum("bin,io->bon", x, self.w1))
        x = torch.einsum("bcn,nm->bcm", x, self.mix)
        x = F.relu(torch.einsum("bcm,cd->bdm", x, self.w2))
        return torch.einsum("bdm,do->bo", x, self.out)


class HyperNet(nn.Module):
    """A second net makes the weights of a layer of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.make = nn.Parameter(torch.randn(8)), nn.Linear(8, 16 * 24)
        self.a, self.b, self.c = nn.Conv2d(3, 24, 3, 1, 1), nn.Conv2d(16, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(self.a(x)), self.make(self.code).view(16, 24, 1, 1))
        return self.head(F.relu(self.c(F.relu(self.b(F.relu(x))))).mean((2, 3)))


class Lazy(nn.Module):
    """Layers that learn their sizes from the first input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.LazyConv2d(24, 3, 2, 1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(32, 3, 1, 1), nn.ReLU()),
            *(nn.Flatten(), nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(5)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Regions(nn.Module):
    """Crops of fixed regions from a feature map, each classified."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU())
        self.fc1, self.fc2 = nn.Linear(32 * 9, 32), nn.Linear(32, 4)
        self.register_buffer("boxes", torch.tensor([[0.0, 1, 1, 7, 7], [1.0, 2, 3, 9, 11]]))

    def forward(self, x: Tensor) -> Tensor:
        crops = roi_align(self.net(x), self.boxes.to(x.dtype), output_size=3)
        return self.fc2(F.relu(self.fc1(crops.flatten(1))))


class Involution(nn.Module):
    """A kernel for each place and group of channels, applied to unfolded neighbours by views."""

    def __init__(self, c: int = 32, groups: int = 4, k: int = 3) -> None:
        super().__init__()
        self.groups, self.k = groups, k
        self.stem, self.reduce, self.span = (
            nn.Conv2d(3, c, 3, 1, 1),
            nn.Conv2d(c, 8, 1),
            nn.Conv2d(8, k * k * groups, 1),
        )
        self.last, self.head = nn.Conv2d(c, c, 3, 1, 1), nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        b, c, h, w = x.shape
        weight = self.span(F.relu(self.reduce(x))).view(b, self.groups, 1, self.k**2, h, w)
        patches = F.unfold(x, self.k, padding=self.k // 2).view(b, self.groups, c // self.groups, self.k**2, h, w)
        x = (weight * patches).sum(3).view(b, c, h, w)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "unusual",
    (NonLocal, SHAPE, "stored width"),
    (DualAttention, SHAPE, "over channels"),
    (Capsules, (2, 1, 14, 14), "literal view"),
    (Graph, ((2, 5, 6), (2, 5, 5)), "two inputs"),
    (GraphAttention, (2, 5, 6), "stored width"),
    (EdgePoints, (2, 3, 10)),
    (Points, (2, 3, 10), "literal view"),
    (Deformed, SHAPE, "deformable"),
    (Transformer2d, (2, 1, 12, 12), "literal view"),
    (Einsum, SHAPE, "einsum", "own parameters"),
    *((build, SHAPE) for build in (HyperNet, Lazy, Regions)),
    (Involution, SHAPE, "parts"),
)
