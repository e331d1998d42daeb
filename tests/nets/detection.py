"""Nets that find things: heads over several scales, anchors, heat maps, key points."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


def cba(i: int, o: int, k: int = 3, s: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU."""
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o), nn.SiLU())


class Backbone(nn.Module):
    """Features of three strides."""

    def __init__(self, widths: tuple[int, int, int] = (16, 24, 32)) -> None:
        super().__init__()
        a, b, c = widths
        self.stem, self.c3, self.c4, self.c5 = cba(3, a, s=2), cba(a, a), cba(a, b, s=2), cba(b, c, s=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        c3 = self.c3(self.stem(x))
        c4 = self.c4(c3)
        return [c3, c4, self.c5(c4)]


class FeaturePyramid(nn.Module):
    """Top-down pyramid of one width."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 32), out: int = 24) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, out, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1) for _ in widths)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for n in range(len(levels) - 1, 0, -1):
            levels[n - 1] = levels[n - 1] + F.interpolate(levels[n], size=levels[n - 1].shape[-2:], mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]


class SsdLike(nn.Module):
    """Boxes and classes of each scale by convolutions, viewed and joined along the anchors; norm of the first scale."""

    def __init__(self, n_classes: int = 4, anchors: int = 3) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.backbone = Backbone()
        self.rescale = nn.Parameter(torch.full((1, 16, 1, 1), 20.0))
        self.loc = nn.ModuleList(nn.Conv2d(w, anchors * 4, 3, padding=1) for w in (16, 24, 32))
        self.conf = nn.ModuleList(nn.Conv2d(w, anchors * n_classes, 3, padding=1) for w in (16, 24, 32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        features[0] = features[0] / features[0].pow(2).sum(dim=1, keepdim=True).sqrt() * self.rescale
        batch = x.size(0)
        locs = [
            head(f).permute(0, 2, 3, 1).contiguous().view(batch, -1, 4)
            for head, f in zip(self.loc, features, strict=True)
        ]
        confs = [
            head(f).permute(0, 2, 3, 1).contiguous().view(batch, -1, self.n_classes)
            for head, f in zip(self.conf, features, strict=True)
        ]
        return torch.cat(locs, 1), torch.cat(confs, 1)


class Csp(nn.Module):
    """Chunks, works on one part, keeps every step."""

    def __init__(self, i: int, o: int, n: int = 2) -> None:
        super().__init__()
        self.c = o // 2
        self.cv1, self.cv2 = cba(i, 2 * self.c, 1), cba((2 + n) * self.c, o, 1)
        self.m = nn.ModuleList(nn.Sequential(cba(self.c, self.c), cba(self.c, self.c)) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).split((self.c, self.c), 1))
        for block in self.m:
            y.append(y[-1] + block(y[-1]))
        return self.cv2(torch.cat(y, 1))


class YoloLike(nn.Module):
    """Split stages, a pyramid by concatenation, raw maps of three scales."""

    def __init__(self, nc: int = 3) -> None:
        super().__init__()
        self.s1, self.s2 = nn.Sequential(cba(3, 16, s=2), Csp(16, 16)), nn.Sequential(cba(16, 32, s=2), Csp(32, 32))
        self.pool, self.after = nn.MaxPool2d(5, 1, 2), cba(128, 32, 1)
        self.up = Csp(48, 24)
        self.heads = nn.ModuleList(nn.Sequential(cba(w, 24), nn.Conv2d(24, 5 + nc, 1)) for w in (24, 32))

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.s1(x)
        x = self.s2(first)
        y1 = self.pool(x)
        y2 = self.pool(y1)
        deep = self.after(torch.cat((x, y1, y2, self.pool(y2)), 1))
        fine = self.up(torch.cat([F.interpolate(deep, scale_factor=2), first], 1))
        return [head(f) for head, f in zip(self.heads, (fine, deep), strict=True)]


class AnchorDecode(nn.Module):
    """Grid and anchors added to views of the raw map, as the older one-stage heads decode."""

    def __init__(self, anchors: int = 3, nc: int = 2) -> None:
        super().__init__()
        self.na, self.no = anchors, nc + 5
        self.body = nn.Sequential(cba(3, 24, s=2), cba(24, 32, s=2), cba(32, 32))
        self.head = nn.Conv2d(32, self.na * self.no, 1)
        self.register_buffer("anchors", torch.rand(1, anchors, 1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.body(x))
        b, _, ny, nx = x.shape
        x = x.view(b, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
        ys, xs = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
        grid = torch.stack((xs, ys), 2).view(1, 1, ny, nx, 2).to(x.dtype)
        xy = (x[..., 0:2].sigmoid() * 2 - 0.5 + grid) * 8
        wh = (x[..., 2:4].sigmoid() * 2) ** 2 * self.anchors
        return torch.cat([xy, wh, x[..., 4:].sigmoid()], -1).view(b, -1, self.no)


class RetinaLike(nn.Module):
    """One head shared by all levels of a pyramid, with group norm and a scale per level."""

    def __init__(self, classes: int = 3, anchors: int = 2) -> None:
        super().__init__()
        self.backbone, self.pyramid = Backbone(), FeaturePyramid()
        tower: list[nn.Module] = []
        for _ in range(2):
            tower += [nn.Conv2d(24, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.ReLU()]
        self.tower = nn.Sequential(*tower)
        self.cls, self.box = nn.Conv2d(24, anchors * classes, 3, padding=1), nn.Conv2d(24, anchors * 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        towers = [self.tower(level) for level in self.pyramid(self.backbone(x))]
        cls = [self.cls(t).flatten(2).transpose(1, 2) for t in towers]
        box = [(self.box(t) * self.scales[n]).exp().flatten(2).transpose(1, 2) for n, t in enumerate(towers)]
        return {"logits": torch.cat(cls, 1), "boxes": torch.cat(box, 1)}


class CenterLike(nn.Module):
    """Deconvolved features, heat map, offsets and sizes; peaks kept by a maximum filter."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(cba(3, 24, s=2), cba(24, 32, s=2), cba(32, 48))
        self.up = nn.Sequential(nn.ConvTranspose2d(48, 24, 4, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, out, 1))
                for name, out in (("heat", 3), ("offset", 2), ("size", 2))
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.up(self.body(x))
        out = {name: head(x) for name, head in self.heads.items()}
        heat = out["heat"].sigmoid()
        out["heat"] = heat * (F.max_pool2d(heat, 3, 1, 1) == heat)
        return out


class BiPyramid(nn.Module):
    """Weighted fusion both ways, weights made positive and normalized in the forward."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.ins = nn.ModuleList(nn.Conv2d(w, width, 1) for w in (16, 24, 32))
        self.td, self.bu = nn.ParameterList(), nn.ParameterList()
        for _ in range(2):
            self.td.append(nn.Parameter(torch.ones(2)))
            self.bu.append(nn.Parameter(torch.ones(2)))
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=width), nn.Conv2d(width, width, 1)) for _ in range(4)
        )
        self.head = nn.Conv2d(width, 8, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        p3, p4, p5 = (conv(f) for conv, f in zip(self.ins, self.backbone(x), strict=True))

        def fuse(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
            weight = F.relu(weight)
            weight = weight / (weight.sum() + 1e-4)
            return F.silu(weight[0] * a + weight[1] * b)

        p4 = self.convs[0](fuse(self.td[0], p4, F.interpolate(p5, scale_factor=2)))
        p3 = self.convs[1](fuse(self.td[1], p3, F.interpolate(p4, scale_factor=2)))
        p4 = self.convs[2](fuse(self.bu[0], p4, F.max_pool2d(p3, 2)))
        p5 = self.convs[3](fuse(self.bu[1], p5, F.max_pool2d(p4, 2)))
        return [self.head(p) for p in (p3, p4, p5)]


class Hourglass(nn.Module):
    """Stacked hourglasses for key points: each reads the features and the heat map of the one before."""

    def __init__(self, width: int = 24, joints: int = 5) -> None:
        super().__init__()
        self.stem = cba(3, width, s=2)
        self.down = nn.ModuleList(cba(width, width) for _ in range(2))
        self.up = nn.ModuleList(cba(width, width) for _ in range(2))
        self.heat = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(2))
        self.back_heat, self.back = nn.Conv2d(joints, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.stem(x), []
        for n in range(2):
            low = F.interpolate(self.up[n](F.max_pool2d(self.down[n](x), 2)), scale_factor=2)
            y = x + low
            maps.append(self.heat[n](y))
            if n == 0:
                x = x + self.back(y) + self.back_heat(maps[0])
        return torch.stack(maps, 1)


class SoftArgmax(nn.Module):
    """Key points as the mean place under a softmax over space."""

    def __init__(self, joints: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(cba(3, 24), cba(24, 32), cba(32, 32), nn.Conv2d(32, joints, 1))

    def forward(self, x: Tensor) -> Tensor:
        heat = self.net(x)
        b, j, h, w = heat.shape
        p = heat.view(b, j, -1).softmax(-1).view(b, j, h, w)
        xs, ys = torch.linspace(-1, 1, w, dtype=x.dtype), torch.linspace(-1, 1, h, dtype=x.dtype)
        return torch.stack([(p.sum(2) * xs).sum(-1), (p.sum(3) * ys).sum(-1)], -1)


class TextLines(nn.Module):
    """Reads a line of text: columns of the feature map as steps of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(cba(1, 24), nn.MaxPool2d(2), cba(24, 48), nn.MaxPool2d((2, 1)), cba(48, 48))
        self.rnn = nn.LSTM(48 * 4, 16, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cnn(x)
        b, c, h, w = x.size()
        x, _ = self.rnn(x.permute(0, 3, 1, 2).reshape(b, w, c * h))
        return self.fc(x).log_softmax(2)


SHAPE = (1, 3, 32, 32)
NETS: tuple[UserNet, ...] = nets(
    "detection",
    (SsdLike, SHAPE, "over channels"),
    (YoloLike, SHAPE, "stored width"),
    (AnchorDecode, SHAPE),
    (RetinaLike, SHAPE, "shared", "dict output"),
    (CenterLike, SHAPE, "dict output"),
    (BiPyramid, SHAPE),
    (Hourglass, SHAPE),
    (SoftArgmax, (1, 3, 12, 12)),
    (TextLines, (1, 1, 16, 24), "recurrent"),
)
