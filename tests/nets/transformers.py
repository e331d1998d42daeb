"""Attention as it is written in published code: windows, rotations, shared keys, masks made on the way."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nets.catalogue import Ids, UserNet, nets
from nets.kernels import Base, cb

SHAPE = (2, 3, 16, 16)


class FlaxHeads(Base):
    """Heads by subscripts, matrices of three dimensions."""

    def init(self, w):
        self.q = nn.Parameter(torch.randn(w, 4, 6) * 0.2)
        self.k = nn.Parameter(torch.randn(w, 4, 6) * 0.2)
        self.v = nn.Parameter(torch.randn(w, 4, 6) * 0.2)
        self.o = nn.Parameter(torch.randn(4, 6, w) * 0.2)

    def mid(self, x):
        b, c, h, w = x.shape
        t = x.flatten(2).transpose(1, 2)
        q, k, v = (torch.einsum("btc,chd->bhtd", t, p) for p in (self.q, self.k, self.v))
        a = (q @ k.transpose(-1, -2) * 6 ** (-0.5)).softmax(-1) @ v
        return (t + torch.einsum("bhtd,hdc->btc", a, self.o)).transpose(1, 2).reshape(b, c, h, w)


def rel_index(n):
    c = torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")).flatten(1)
    r = (c[:, :, None] - c[:, None]).permute(1, 2, 0) + n - 1
    return r[..., 0] * (2 * n - 1) + r[..., 1]


class SwinBlock(nn.Module):
    """Windows with a table of relative positions (Liu et al., 2021)."""

    def __init__(self, dim, heads, win, shift):
        super().__init__()
        self.dim, self.heads, self.win, self.shift = (dim, heads, win, shift)
        self.scale = (dim // heads) ** (-0.5)
        self.n1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.n2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.table = nn.Parameter(torch.randn((2 * win - 1) ** 2, heads))
        self.register_buffer("idx", rel_index(win))

    def forward(self, x):
        batch, height, width, channels = x.shape
        w = self.win
        y = self.n1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = (
            y.view(batch, height // w, w, width // w, w, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(-1, w * w, channels)
        )
        q, k, v = self.qkv(y).reshape(-1, w * w, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        a = q * self.scale @ k.transpose(-2, -1)
        a = a + self.table[self.idx.view(-1)].view(w * w, w * w, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        y = (a.softmax(-1) @ v).transpose(1, 2).reshape(-1, w * w, channels)
        y = (
            self.proj(y)
            .view(batch, height // w, width // w, w, w, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(batch, height, width, channels)
        )
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.n2(x))


class SwinOwn(Base):
    """Two of them, one shifted."""

    def init(self, w):
        self.a = SwinBlock(w, 4, 4, 0)
        self.b = SwinBlock(w, 4, 4, 2)

    def mid(self, x):
        return self.b(self.a(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Gqa(nn.Module):
    """Fewer keys than queries, turned by their positions."""

    def __init__(self, d, heads, kv):
        super().__init__()
        self.h, self.kv, self.hd = (heads, kv, d // heads)
        self.rep = heads // kv
        self.wq = nn.Linear(d, heads * self.hd, bias=False)
        self.wk = nn.Linear(d, kv * self.hd, bias=False)
        self.wv = nn.Linear(d, kv * self.hd, bias=False)
        self.wo = nn.Linear(heads * self.hd, d, bias=False)
        f = 1.0 / 10000 ** (torch.arange(0, self.hd, 2).float() / self.hd)
        t = torch.outer(torch.arange(64).float(), f)
        self.register_buffer("cos", t.cos(), persistent=False)
        self.register_buffer("sin", t.sin(), persistent=False)

    def rope(self, x):
        length = x.shape[1]
        a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        c, sn = (self.cos[:length, None], self.sin[:length, None])
        return torch.stack([a * c - b * sn, a * sn + b * c], -1).flatten(3)

    def forward(self, x):
        batch, length, _ = x.shape
        q = self.wq(x).view(batch, length, self.h, self.hd)
        k = self.wk(x).view(batch, length, self.kv, self.hd)
        v = self.wv(x).view(batch, length, self.kv, self.hd)
        q, k = (self.rope(q), self.rope(k))
        k = k[:, :, :, None].expand(batch, length, self.kv, self.rep, self.hd).reshape(batch, length, self.h, self.hd)
        v = v[:, :, :, None].expand(batch, length, self.kv, self.rep, self.hd).reshape(batch, length, self.h, self.hd)
        o = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.wo(o.transpose(1, 2).reshape(batch, length, -1))


class SwiGlu(nn.Module):
    """A gated layer."""

    def __init__(self, d, h):
        super().__init__()
        self.w1 = nn.Linear(d, h, bias=False)
        self.w3 = nn.Linear(d, h, bias=False)
        self.w2 = nn.Linear(h, d, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Llama(nn.Module):
    """A causal language model."""

    def __init__(self):
        super().__init__()
        d = 32
        self.emb = nn.Embedding(50, d)
        self.blocks = nn.ModuleList(
            [
                nn.ModuleDict({"a": Gqa(d, 4, 2), "f": SwiGlu(d, 64), "n1": nn.RMSNorm(d), "n2": nn.RMSNorm(d)})
                for _ in range(2)
            ]
        )
        self.n = nn.RMSNorm(d)
        self.head = nn.Linear(d, 50, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, i):
        x = self.emb(i)
        for b in self.blocks:
            x = x + b["a"](b["n1"](x))
            x = x + b["f"](b["n2"](x))
        return self.head(self.n(x))


class GptTied(nn.Module):
    """An encoder with a mask made in the forward."""

    def __init__(self):
        super().__init__()
        d = 32
        self.tok = nn.Embedding(50, d)
        self.pos = nn.Embedding(16, d)
        self.enc = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(d, 4, 64, batch_first=True, norm_first=True, activation="gelu"), 2
        )
        self.ln = nn.LayerNorm(d)

    def forward(self, i):
        length = i.shape[1]
        x = self.tok(i) + self.pos(torch.arange(length, device=i.device))
        m = nn.Transformer.generate_square_subsequent_mask(length, dtype=x.dtype)
        return self.ln(self.enc(x, mask=m)) @ self.tok.weight.t()


class PvtSr(Base):
    """Keys of a smaller map (Wang et al., 2021)."""

    def init(self, w):
        self.q = nn.Linear(w, w)
        self.kv = nn.Linear(w, 2 * w)
        self.sr = nn.Conv2d(w, w, 2, 2)
        self.n = nn.LayerNorm(w)
        self.o = nn.Linear(w, w)
        self.h = 4

    def mid(self, x):
        b, c, h, w = x.shape
        t = x.flatten(2).transpose(1, 2)
        q = self.q(t).reshape(b, -1, self.h, c // self.h).permute(0, 2, 1, 3)
        r = self.n(self.sr(x).reshape(b, c, -1).permute(0, 2, 1))
        k, v = self.kv(r).reshape(b, -1, 2, self.h, c // self.h).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-2, -1) * (c // self.h) ** (-0.5)).softmax(-1)
        return (t + self.o((a @ v).transpose(1, 2).reshape(b, -1, c))).permute(0, 2, 1).view(b, c, h, w)


class XcitAttn(Base):
    """Attention between channels (El-Nouby et al., 2021)."""

    def init(self, w):
        self.qkv = nn.Conv2d(w, 3 * w, 1)
        self.dw = nn.Conv2d(3 * w, 3 * w, 3, padding=1, groups=3 * w)
        self.o = nn.Conv2d(w, w, 1)
        self.h = 4
        self.t = nn.Parameter(torch.ones(4, 1, 1))

    def mid(self, x):
        b, c, h, w = x.shape
        q, k, v = self.dw(self.qkv(x)).chunk(3, 1)
        q, k, v = (z.reshape(b, self.h, c // self.h, h * w) for z in (q, k, v))
        q, k = (F.normalize(q, dim=-1), F.normalize(k, dim=-1))
        return x + self.o(((q @ k.transpose(-2, -1) * self.t).softmax(-1) @ v).reshape(b, c, h, w))


class TalkingHeads(Base):
    """Heads that are mixed (Touvron et al., 2021)."""

    def init(self, w):
        self.qkv = nn.Linear(w, 3 * w)
        self.o = nn.Linear(w, w)
        self.h = 4
        self.pl = nn.Linear(4, 4)
        self.pw = nn.Linear(4, 4)

    def mid(self, x):
        b, c, h, w = x.shape
        t = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(t).view(b, h * w, 3, self.h, -1).permute(2, 0, 3, 1, 4)
        a = q @ k.transpose(-1, -2) * q.shape[-1] ** (-0.5)
        a = self.pw(self.pl(a.permute(0, 2, 3, 1)).softmax(2)).permute(0, 3, 1, 2)
        return (t + self.o((a @ v).transpose(1, 2).flatten(2))).transpose(1, 2).view(b, c, h, w)


class FocalMod(Base):
    """Contexts of several sizes and their gates from one layer (Yang et al., 2022)."""

    def init(self, w):
        self.f = nn.Linear(w, 2 * w + 3)
        self.h = nn.Conv2d(w, w, 1)
        self.p = nn.Linear(w, w)
        self.layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(w, w, 3, padding=1, groups=w, bias=False), nn.GELU()) for _ in range(2)]
        )

    def mid(self, x):
        channels = x.shape[1]
        x = self.f(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        q, ctx, g = torch.split(x, (channels, channels, 3), 1)
        al = 0
        for place, m in enumerate(self.layers):
            ctx = m(ctx)
            al = al + ctx * g[:, place : place + 1]
        al = al + F.gelu(ctx.mean((2, 3), keepdim=True)) * g[:, 2:]
        return self.p((q * self.h(al)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class HorNetGnConv(Base):
    """Gated convolutions of growing width (Rao et al., 2022)."""

    def init(self, w):
        self.dims = [w // 4, w // 2, w]
        self.pi = nn.Conv2d(w, 2 * w, 1)
        self.dw = nn.Conv2d(sum(self.dims), sum(self.dims), 7, padding=3, groups=sum(self.dims))
        self.po = nn.Conv2d(w, w, 1)
        self.pws = nn.ModuleList([nn.Conv2d(self.dims[i], self.dims[i + 1], 1) for i in range(2)])

    def mid(self, x):
        y = self.pi(x)
        p, q = torch.split(y, (self.dims[0], sum(self.dims)), 1)
        d = torch.split(self.dw(q), self.dims, 1)
        x = p * d[0]
        for i in range(2):
            x = self.pws[i](x) * d[i + 1]
        return self.po(x)


class InvolutionOwn(Base):
    """Filters for a stored number of channels each."""

    def init(self, w):
        self.g = 4
        self.red = nn.Conv2d(w, w // 4, 1)
        self.span = nn.Conv2d(w // 4, 9 * (w // 4), 1)
        self.un = nn.Unfold(3, 1, 1)
        self.gc = 4

    def mid(self, x):
        b, c, h, w = x.shape
        k = self.span(self.red(x)).view(b, c // self.gc, 9, h, w).unsqueeze(2)
        o = self.un(x).view(b, c // self.gc, self.gc, 9, h, w)
        return (k * o).sum(3).view(b, c, h, w)


class DoubleAttn(Base):
    """Features gathered, then handed out (Chen et al., 2018)."""

    def init(self, w):
        self.a = nn.Conv2d(w, 16, 1)
        self.b = nn.Conv2d(w, 8, 1)
        self.v = nn.Conv2d(w, 8, 1)
        self.r = nn.Conv2d(16, w, 1)

    def mid(self, x):
        b, _, h, w = x.shape
        gathered = self.a(x).view(b, 16, -1)
        batch = self.b(x).view(b, 8, -1).softmax(-1)
        handed = self.v(x).view(b, 8, -1).softmax(1)
        return x + self.r((torch.bmm(gathered, batch.permute(0, 2, 1)) @ handed).view(b, 16, h, w))


class DetrLike(nn.Module):
    """Positions joined of rows and columns, queries, PyTorch's own transformer (Carion et al., 2020)."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(cb(3, 24, stride=2), cb(24, 32, stride=2))
        self.p = nn.Conv2d(32, 32, 1)
        self.t = nn.Transformer(32, 4, 1, 1, 64, batch_first=False)
        self.q = nn.Parameter(torch.rand(6, 32))
        self.row = nn.Parameter(torch.rand(10, 16))
        self.col = nn.Parameter(torch.rand(10, 16))
        self.cls = nn.Linear(32, 5)
        self.box = nn.Linear(32, 4)

    def forward(self, x):
        h = self.p(self.b(x))
        height, width = h.shape[-2:]
        pos = (
            torch.cat(
                [
                    self.col[:width].unsqueeze(0).repeat(height, 1, 1),
                    self.row[:height].unsqueeze(1).repeat(1, width, 1),
                ],
                -1,
            )
            .flatten(0, 1)
            .unsqueeze(1)
        )
        h = self.t(pos + 0.1 * h.flatten(2).permute(2, 0, 1), self.q.unsqueeze(1).repeat(1, h.shape[0], 1)).transpose(
            0, 1
        )
        return {"logits": self.cls(h), "boxes": self.box(h).sigmoid()}


class MaskFormerHead(nn.Module):
    """Masks by products of queries and pixels."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(cb(3, 24), cb(24, 32))
        self.pix = nn.Conv2d(32, 20, 1)
        self.q = nn.Embedding(5, 32)
        self.att = nn.MultiheadAttention(32, 4, batch_first=True)
        self.me = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 20))
        self.cls = nn.Linear(32, 4)

    def forward(self, x):
        f = self.b(x)
        k = f.flatten(2).transpose(1, 2)
        q = self.q.weight.unsqueeze(0).expand(len(x), -1, -1)
        q = q + self.att(q, k, k, need_weights=False)[0]
        return (self.cls(q), torch.einsum("bqc,bchw->bqhw", self.me(q), self.pix(f)))


class DropBlockEval(Base):
    """Dropouts of all kinds."""

    def init(self, w):
        self.d = nn.Dropout2d(0.2)
        self.a = nn.AlphaDropout(0.1)
        self.f = nn.FeatureAlphaDropout(0.1)

    def mid(self, x):
        return self.f(self.a(self.d(x)))


NETS: tuple[UserNet, ...] = nets(
    "transformers",
    (FlaxHeads, SHAPE),
    (SwinOwn, SHAPE),
    (Llama, Ids((2, 12), 50)),
    (GptTied, Ids((2, 12), 50)),
    (PvtSr, SHAPE),
    (XcitAttn, SHAPE),
    (TalkingHeads, SHAPE),
    (FocalMod, SHAPE),
    (HorNetGnConv, SHAPE),
    (InvolutionOwn, SHAPE),
    (DoubleAttn, SHAPE),
    (DetrLike, SHAPE),
    (MaskFormerHead, SHAPE),
    (DropBlockEval, SHAPE),
)
