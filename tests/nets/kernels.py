"""Nets whose weights are computed from several tensors, or hold more than one layer's channels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets

SHAPE = (2, 3, 16, 16)


def cb(i, o, k=3, stride=1, g=1):
    return nn.Sequential(nn.Conv2d(i, o, k, stride, k // 2, groups=g, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Base(nn.Module):
    """A convolution, what `mid` does, another one, a classifier."""

    W = 24

    def __init__(self):
        super().__init__()
        self.stem = cb(3, self.W)
        self.init(self.W)
        self.tail = cb(self.out(), 20)
        self.fc = nn.Linear(20, 7)

    def out(self):
        return self.W

    def init(self, w):
        pass

    def forward(self, x):
        x = self.tail(self.mid(self.stem(x)))
        return self.fc(x.mean((2, 3)))


class CatParamsConv(Base):
    """A kernel joined of two along its outputs."""

    def init(self, w):
        self.a = nn.Parameter(torch.randn(w // 2, w, 3, 3) * 0.1)
        self.b = nn.Parameter(torch.randn(w // 2, w, 3, 3) * 0.1)

    def mid(self, x):
        return F.conv2d(x, torch.cat([self.a, self.b], 0), padding=1).relu()


class CatParamsIn(Base):
    """A kernel joined of two along its inputs."""

    def init(self, w):
        self.a = nn.Parameter(torch.randn(w, w // 2, 3, 3) * 0.1)
        self.b = nn.Parameter(torch.randn(w, w // 2, 3, 3) * 0.1)

    def mid(self, x):
        return F.conv2d(x, torch.cat([self.a, self.b], 1), padding=1).relu()


class CatParamsLinear(Base):
    """A matrix joined of two."""

    def init(self, w):
        self.a = nn.Parameter(torch.randn(w // 2, w) * 0.1)
        self.b = nn.Parameter(torch.randn(w // 2, w) * 0.1)

    def mid(self, x):
        return F.linear(x.permute(0, 2, 3, 1), torch.cat([self.a, self.b])).permute(0, 3, 1, 2).relu()


class LoraConv(nn.Module):
    """A kernel plus factors of low rank, as loralib stores them."""

    def __init__(self, i, o, k, r=2):
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, padding=k // 2)
        self.lora_A = nn.Parameter(torch.randn(r * k, i * k) * 0.1)
        self.lora_B = nn.Parameter(torch.randn(o * k, r * k) * 0.1)
        self.scaling = 1 / r

    def forward(self, x):
        return self.conv._conv_forward(
            x,
            self.conv.weight + (self.lora_B @ self.lora_A).view(self.conv.weight.shape) * self.scaling,
            self.conv.bias,
        )


class LoraLibConv(Base):
    """Low rank beside a kernel, in rows of a kernel's rows."""

    def init(self, w):
        self.c = LoraConv(w, w, 3)

    def mid(self, x):
        return self.c(x).relu()


class LoraConvMerged(nn.Module):
    """A kernel plus a product of two kernels."""

    def __init__(self, i, o, k, r=4):
        super().__init__()
        self.w = nn.Parameter(torch.randn(o, i, k, k) * 0.1)
        self.A = nn.Parameter(torch.randn(r, i, k, k) * 0.1)
        self.B = nn.Parameter(torch.randn(o, r, 1, 1) * 0.1)

    def forward(self, x):
        d = (self.B.flatten(1) @ self.A.flatten(1)).view(self.w.shape)
        return F.conv2d(x, self.w + d, padding=1)


class LoraConvEq(Base):
    """Low rank by a narrow kernel."""

    def init(self, w):
        self.c = LoraConvMerged(w, w, 3)

    def mid(self, x):
        return self.c(x).relu()


class Dora(Base):
    """Directions of low rank, and lengths."""

    def init(self, w):
        self.l = nn.Linear(w, w)
        self.A = nn.Parameter(torch.randn(4, w) * 0.1)
        self.B = nn.Parameter(torch.randn(w, 4) * 0.1)
        self.m = nn.Parameter(torch.rand(w, 1) + 0.5)

    def mid(self, x):
        v = self.l.weight + self.B @ self.A
        return (
            F.linear(x.permute(0, 2, 3, 1), self.m * v / v.norm(dim=1, keepdim=True), self.l.bias)
            .permute(0, 3, 1, 2)
            .relu()
        )


class GroupedBaddbmm(Base):
    """One matrix a group, with a bias."""

    def init(self, w):
        self.g = 4
        self.w = nn.Parameter(torch.randn(4, w // 4, w // 4) * 0.3)
        self.b = nn.Parameter(torch.randn(4, 1, w // 4))

    def mid(self, x):
        b, c, h, w = x.shape
        t = x.view(b, self.g, c // self.g, h * w).permute(1, 0, 3, 2).reshape(self.g, -1, c // self.g)
        t = torch.baddbmm(self.b, t, self.w)
        return t.view(self.g, b, h * w, -1).permute(1, 0, 3, 2).reshape(b, -1, h, w).relu()


class GroupedEinsum(Base):
    """One matrix a group, by subscripts."""

    def init(self, w):
        self.g = 4
        self.w = nn.Parameter(torch.randn(4, w // 4, w // 4) * 0.3)

    def mid(self, x):
        b, _, h, w = x.shape
        return torch.einsum("bgchw,gco->bgohw", x.view(b, self.g, -1, h, w), self.w).reshape(b, -1, h, w).relu()


class GroupedBmm(Base):
    """One matrix for every three channels."""

    def init(self, w):
        self.w = nn.Parameter(torch.randn(w // 3, 3, 3) * 0.3)

    def mid(self, x):
        b, c, h, w = x.shape
        t = x.reshape(b, c // 3, 3, -1).permute(1, 0, 3, 2).flatten(1, 2)
        t = torch.bmm(t, self.w)
        return t.view(c // 3, b, h, w, 3).permute(1, 0, 4, 2, 3).reshape(b, c, h, w).relu()


class CondDepthwise(Base):
    """Depthwise filters mixed for each sample."""

    def init(self, w):
        self.wt = nn.Parameter(torch.randn(4, w, 1, 3, 3))
        self.route = nn.Linear(w, 4)

    def mid(self, x):
        b, c, h, w = x.shape
        r = self.route(x.mean((2, 3))).softmax(1)
        k = torch.einsum("bn,ncijk->bcijk", r, self.wt).reshape(b * c, 1, 3, 3)
        return F.conv2d(x.reshape(1, -1, h, w), k, padding=1, groups=b * c).view(b, c, h, w).relu()


class DynamicConv(Base):
    """Kernels mixed for each sample (Chen et al., 2020)."""

    def init(self, w):
        self.wt = nn.Parameter(torch.randn(4, w, w, 3, 3) * 0.1)
        self.b = nn.Parameter(torch.randn(4, w))
        self.at = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(w, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten()
        )

    def mid(self, x):
        b, c, h, w = x.shape
        a = F.softmax(self.at(x) / 30, 1)
        wt = torch.mm(a, self.wt.view(4, -1)).view(b * c, c, 3, 3)
        bias = torch.mm(a, self.b).view(-1)
        return F.conv2d(x.view(1, -1, h, w), wt, bias, padding=1, groups=b).view(b, c, h, w).relu()


class OnceForAll(Base):
    """The middle of a larger kernel, changed by a small matrix (Cai et al., 2020)."""

    def init(self, w):
        self.c = nn.Conv2d(w, w, 5, padding=2)
        self.m = nn.Linear(9, 9)

    def mid(self, x):
        k = self.c.weight[:, :, 1:4, 1:4]
        k = self.m(k.reshape(-1, 9)).view(k.shape)
        return F.conv2d(x, k, self.c.bias, padding=1).relu()


class Slimmable(Base):
    """A part of a kernel's rows."""

    def init(self, w):
        self.c = nn.Conv2d(w, 2 * w, 3, padding=1)
        self.n = w

    def mid(self, x):
        return F.conv2d(x, self.c.weight[: self.n], self.c.bias[: self.n], padding=1).relu()


class Kan(Base):
    """Polynomials of every channel."""

    def init(self, w):
        self.co = nn.Parameter(torch.randn(w, w, 5) * 0.2)
        self.register_buffer("deg", torch.arange(0, 5).float())

    def mid(self, x):
        b, c, h, w = x.shape
        t = x.permute(0, 2, 3, 1).reshape(-1, c, 1).tanh()
        t = torch.cos(self.deg * torch.acos(t * 0.99))
        y = torch.einsum("bid,iod->bo", t, self.co)
        return y.view(b, h, w, -1).permute(0, 3, 1, 2)


class KanSpline(Base):
    """Radial bases of every channel, read by a matrix that is stored in three dimensions."""

    def init(self, w):
        self.base = nn.Parameter(torch.randn(w, w) * 0.1)
        self.sp = nn.Parameter(torch.randn(w, w, 6) * 0.1)
        self.register_buffer("grid", torch.linspace(-1, 1, 6).expand(w, -1).contiguous())
        self.i = w
        self.o = w

    def mid(self, x):
        b, _, h, w = x.shape
        t = x.permute(0, 2, 3, 1).reshape(-1, self.i)
        bases = torch.exp(-((t.unsqueeze(-1) - self.grid) ** 2))
        y = F.linear(F.silu(t), self.base) + F.linear(bases.view(t.size(0), -1), self.sp.view(self.o, -1))
        return y.view(b, h, w, self.o).permute(0, 3, 1, 2)


class FastKan(Base):
    """Radial bases of normalized channels."""

    def init(self, w):
        self.ln = nn.LayerNorm(w)
        self.register_buffer("g", torch.linspace(-2, 2, 4))
        self.l = nn.Linear(w * 4, w)

    def mid(self, x):
        t = self.ln(x.permute(0, 2, 3, 1))
        bs = torch.exp(-(((t[..., None] - self.g) / 0.5) ** 2))
        return self.l(bs.view(*bs.shape[:-2], -1)).permute(0, 3, 1, 2)


class MoEBatched(Base):
    """All experts at once, by subscripts."""

    def init(self, w):
        self.gate = nn.Linear(w, 4)
        self.w1 = nn.Parameter(torch.randn(4, w, 2 * w) * 0.1)
        self.w2 = nn.Parameter(torch.randn(4, 2 * w, w) * 0.1)

    def mid(self, x):
        b, c, h, w = x.shape
        t = x.flatten(2).transpose(1, 2).reshape(-1, c)
        g = self.gate(t).softmax(-1)
        y = torch.einsum("nc,ecd->end", t, self.w1).relu()
        y = torch.einsum("end,edc->enc", y, self.w2)
        return torch.einsum("enc,ne->nc", y, g).view(b, h * w, c).transpose(1, 2).view(b, c, h, w)


class GraphImg(Base):
    """A learnt graph over columns, one of three a share of the channels."""

    def init(self, w):
        self.A = nn.Parameter(torch.randn(3, 16, 16))
        self.c = nn.Conv2d(w, 3 * w, 1)
        self.k = 3

    def mid(self, x):
        y = self.c(x)
        n, kc, t, v = y.shape
        y = y.view(n, self.k, kc // self.k, t, v)
        return torch.einsum("nkctv,kvw->nctw", y, self.A).contiguous().relu()


class ChebLinear(Base):
    """A stored graph from the left."""

    def init(self, w):
        self.register_buffer("L", torch.rand(256, 256) / 128)
        self.ls = nn.ModuleList([nn.Linear(w, w) for _ in range(3)])

    def mid(self, x):
        b, c, h, w = x.shape
        t0 = x.flatten(2).transpose(1, 2)
        t1 = torch.matmul(self.L, t0)
        o = self.ls[0](t0) + self.ls[1](t1)
        t2 = 2 * torch.matmul(self.L, t1) - t0
        return (o + self.ls[2](t2)).relu().transpose(1, 2).view(b, c, h, w)


class GlowInv(Base):
    """A matrix over channels, and a scale and shift of each."""

    def init(self, w):
        self.q = nn.Parameter(torch.linalg.qr(torch.randn(w, w))[0])
        self.b = nn.Parameter(torch.zeros(1, w, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, w, 1, 1))

    def mid(self, x):
        x = (x + self.b) * self.logs.exp()
        return F.conv2d(x, self.q[..., None, None])


class FilterGen(Base):
    """Depthwise filters made of the picture."""

    def init(self, w):
        self.gen = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, w * 9))
        self.k = 3

    def mid(self, x):
        b, c, h, w = x.shape
        k = self.gen(x).view(b * c, 1, 3, 3)
        return F.conv2d(x.view(1, b * c, h, w), k, padding=1, groups=b * c).view(b, c, h, w).relu()


NETS: tuple[UserNet, ...] = nets(
    "kernels",
    (CatParamsConv, SHAPE),
    (CatParamsIn, SHAPE),
    (CatParamsLinear, SHAPE),
    (LoraLibConv, SHAPE),
    (LoraConvEq, SHAPE),
    (Dora, SHAPE),
    (GroupedBaddbmm, SHAPE),
    (GroupedEinsum, SHAPE),
    (GroupedBmm, SHAPE),
    (CondDepthwise, SHAPE),
    (DynamicConv, SHAPE),
    (OnceForAll, SHAPE),
    (Slimmable, SHAPE),
    (Kan, SHAPE),
    (KanSpline, SHAPE),
    (FastKan, SHAPE),
    (MoEBatched, SHAPE),
    (GraphImg, SHAPE),
    (ChebLinear, SHAPE),
    (GlowInv, SHAPE),
    (FilterGen, SHAPE),
)
