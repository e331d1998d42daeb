"""Nets that answer for every place: UNets, pyramids, dilated heads, parallel resolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


def double(i: int, o: int) -> nn.Sequential:
    """Twice convolution, norm and activation."""
    return nn.Sequential(
        *(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)),
        *(nn.Conv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)),
    )


class UNet(nn.Module):
    """Transposed convolutions up, joined by concatenation."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 32)) -> None:
        super().__init__()
        a, b, c = widths
        self.e1, self.e2, self.e3 = double(3, a), double(a, b), double(b, c)
        self.u2, self.d2 = nn.ConvTranspose2d(c, b, 2, 2), double(2 * b, b)
        self.u1, self.d1 = nn.ConvTranspose2d(b, a, 2, 2), double(2 * a, a)
        self.out = nn.Conv2d(a, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.e1(x)
        second = self.e2(F.max_pool2d(first, 2))
        x = self.e3(F.max_pool2d(second, 2))
        x = self.d2(torch.cat([self.u2(x), second], 1))
        return self.out(self.d1(torch.cat([self.u1(x), first], 1)))


class PaddedUNet(nn.Module):
    """Bilinear up-sampling, padded to the size of the skip, for odd inputs; added, not joined."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = double(1, 24), double(24, 24)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.out = nn.Sequential(double(24, 16), nn.Conv2d(16, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        first = self.down(x)
        up = self.up(self.mid(F.max_pool2d(first, 2)))
        dy, dx = first.size(2) - up.size(2), first.size(3) - up.size(3)
        up = F.pad(up, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.out(first + up)


class RecursiveUNet(nn.Module):
    """Built from the inside out; each level joins its input to its output."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.InstanceNorm2d(2 * width), nn.LeakyReLU(0.2))
        self.inner = RecursiveUNet(2 * width, depth - 1) if depth > 1 else None
        inner = 4 * width if depth > 1 else 2 * width
        self.up = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(inner, width, 4, 2, 1), nn.InstanceNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x)
        y = self.inner(y) if self.inner is not None else y
        return torch.cat([x, self.up(y)], 1)


def recursive_unet() -> nn.Module:
    """Three levels."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), RecursiveUNet(12, 3), nn.Conv2d(24, 12, 3, padding=1), nn.Conv2d(12, 3, 1)
    )


class GateSkip(nn.Module):
    """Gates the skip of a UNet by what comes from below."""

    def __init__(self, skip: int, below: int, inner: int) -> None:
        super().__init__()
        self.s = nn.Sequential(nn.Conv2d(skip, inner, 1), nn.BatchNorm2d(inner))
        self.b = nn.Sequential(nn.Conv2d(below, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        return skip * self.psi(F.relu(self.s(skip) + self.b(below)))


class AttentionUNet(nn.Module):
    """Attention gates on the skips."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = double(3, 24), double(24, 48)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(48, 24, 3, padding=1))
        self.gate, self.d1 = GateSkip(24, 24, 12), double(48, 24)
        self.out = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.e1(x)
        below = self.up(self.e2(F.max_pool2d(first, 2)))
        return self.out(self.d1(torch.cat((self.gate(first, below), below), dim=1)))


class NestedUNet(nn.Module):
    """Every level is read by every later one of its row; several supervised outputs."""

    def __init__(self) -> None:
        super().__init__()
        n = (16, 24, 32)
        self.c00, self.c10, self.c20 = double(3, n[0]), double(n[0], n[1]), double(n[1], n[2])
        self.c01, self.c11 = double(n[0] + n[1], n[0]), double(n[1] + n[2], n[1])
        self.c02 = double(2 * n[0] + n[1], n[0])
        self.out1, self.out2 = nn.Conv2d(n[0], 2, 1), nn.Conv2d(n[0], 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        def up(t: Tensor) -> Tensor:
            return F.interpolate(t, scale_factor=2, mode="bilinear", align_corners=False)

        x00 = self.c00(x)
        x10 = self.c10(F.max_pool2d(x00, 2))
        x01 = self.c01(torch.cat([x00, up(x10)], 1))
        x11 = self.c11(torch.cat([x10, up(self.c20(F.max_pool2d(x10, 2)))], 1))
        return [self.out1(x01), self.out2(self.c02(torch.cat([x00, x01, up(x11)], 1)))]


class SegIndices(nn.Module):
    """Pools with indices and un-pools by them."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = double(3, 24), double(24, 32)
        self.d2, self.d1 = double(32, 24), double(24, 24)
        self.out = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, first = F.max_pool2d(self.e1(x), 2, return_indices=True)
        x, second = F.max_pool2d(self.e2(x), 2, return_indices=True)
        x = self.d2(F.max_unpool2d(x, second, 2))
        return self.out(self.d1(F.max_unpool2d(x, first, 2)))


class DilatedHead(nn.Module):
    """Dilated branches and pooled context, joined and projected."""

    def __init__(self, i: int, o: int, rates: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=r, dilation=r, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for r in rates
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(i, o, 1, bias=False), nn.ReLU())
        self.project = nn.Sequential(nn.Conv2d(o * (len(rates) + 1), o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))


class DeepLabLike(nn.Module):
    """Dilated head, low-level features of stored width, a dict of outputs with an auxiliary one."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = double(3, 24), nn.Sequential(nn.MaxPool2d(2), double(24, 48))
        self.head, self.reduce = DilatedHead(48, 32), nn.Conv2d(24, 8, 1)
        self.out, self.aux = nn.Sequential(double(40, 32), nn.Conv2d(32, 6, 1)), nn.Conv2d(48, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        low = self.low(x)
        high = self.high(low)
        top = F.interpolate(self.head(high), size=low.shape[-2:], mode="bilinear", align_corners=False)
        out = self.out(torch.cat([self.reduce(low), top], 1))
        aux = F.interpolate(self.aux(high), size=size, mode="bilinear", align_corners=False)
        return {"out": F.interpolate(out, size=size), "aux": aux}


class PyramidPool(nn.Module):
    """Pools at several grids, each reduced to a share of the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(double(3, 32), nn.MaxPool2d(2), double(32, 48))
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(48, 48 // 4, 1), nn.ReLU()) for n in (1, 2, 3, 6)
        )
        self.last = nn.Sequential(nn.Conv2d(96, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU(), nn.Conv2d(32, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        parts = [F.interpolate(level(x), x.shape[2:], mode="nearest") for level in self.levels]
        return self.last(torch.cat([x, *parts], 1))


class HighResolution(nn.Module):
    """Two resolutions side by side that exchange features in a loop over lists."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = double(3, 16)
        self.start = nn.ModuleList([double(16, 16), nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32))])
        self.branches = nn.ModuleList([double(16, 16), double(32, 32)])
        self.up = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Upsample(scale_factor=2))
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32))
        self.out = nn.Sequential(nn.Conv2d(48, 48, 1), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        fine, coarse = (F.relu(start(x)) for start in self.start)
        for _ in range(2):
            fine, coarse = self.branches[0](fine), self.branches[1](coarse)
            fine, coarse = F.relu(fine + self.up(coarse)), F.relu(self.down(fine) + coarse)
        return self.out(torch.cat([fine, F.interpolate(coarse, scale_factor=2)], 1))


class BoundaryNet(nn.Module):
    """Learns the class and the boundary; the boundary gates the class features."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(double(3, 32), double(32, 32))
        self.edge = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.SELU(), nn.Conv2d(16, 1, 1))
        self.classes = nn.Sequential(double(33, 32), nn.Conv2d(32, 5, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        edge = self.edge(x)
        return self.classes(torch.cat([x * (1 + edge.sigmoid()), edge], 1)), edge


class Fcn(nn.Module):
    """Scores of three strides, up-sampled by transposed convolutions of the number of classes, cropped, added."""

    def __init__(self, n_class: int = 4) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = double(3, 16), double(16, 32), double(32, 48)
        self.s2, self.s3 = nn.Conv2d(32, n_class, 1), nn.Conv2d(48, n_class, 1)
        self.up3 = nn.ConvTranspose2d(n_class, n_class, 4, 2, bias=False)
        self.up2 = nn.ConvTranspose2d(n_class, n_class, 4, 2, groups=n_class, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x = self.c1(x)
        x = second = self.c2(F.max_pool2d(x, 2))
        x = self.up3(self.s3(self.c3(F.max_pool2d(x, 2))))
        x = x[:, :, 1 : 1 + second.shape[2], 1 : 1 + second.shape[3]] + self.s2(second)
        return self.up2(x)[:, :, 1 : 1 + size[0], 1 : 1 + size[1]].contiguous()


SHAPE = (1, 3, 16, 16)
NETS: tuple[UserNet, ...] = nets(
    "segmentation",
    (UNet, SHAPE),
    (PaddedUNet, (1, 1, 15, 17)),
    (recursive_unet, SHAPE),
    (AttentionUNet, SHAPE),
    (NestedUNet, SHAPE, "list output"),
    (SegIndices, SHAPE, "max_unpool"),
    (DeepLabLike, SHAPE, "dict output"),
    (PyramidPool, SHAPE),
    (HighResolution, SHAPE),
    (BoundaryNet, SHAPE, "several outputs"),
    (Fcn, SHAPE),
)
