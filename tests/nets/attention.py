"""Transformers as people write them for pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import Ids, UserNet, nets


class Attention(nn.Module):
    """Heads and head size stored, one matrix for queries, keys and values."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Sequential):
    """Two linear layers."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class VitBlock(nn.Module):
    """Pre-norm block."""

    def __init__(self, dim: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm1, self.mixer = nn.LayerNorm(dim), mixer
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Patches, class token, positions."""

    def __init__(self, block: nn.Module | None = None, dim: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.randn(1, 17, dim) * 0.02)
        self.blocks = nn.Sequential(*([block] if block else [VitBlock(dim, Attention(dim)) for _ in range(2)]))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), dim=1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit() -> nn.Module:
    """The plain one."""
    return Vit()


class SplitHeads(nn.Module):
    """Three projections; heads by a view with stored heads and a stored head size, a stored inner width after."""

    def __init__(self, dim: int = 32, heads: int = 4, head: int = 8) -> None:
        super().__init__()
        self.heads, self.dim_head, self.inner = heads, head, heads * head
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, self.inner, bias=False) for _ in range(3))
        self.to_out = nn.Linear(self.inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            f(x).view(b, n, self.heads, self.dim_head).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v)
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(x.transpose(1, 2).contiguous().view(b, n, self.inner))


def split_heads() -> nn.Module:
    """Stored heads, head size and inner width."""
    return Vit(VitBlock(32, SplitHeads()))


class SelfMha(nn.Module):
    """PyTorch's attention module on one input."""

    def __init__(self, dim: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def multihead_module() -> nn.Module:
    """A block around PyTorch's module."""
    return Vit(VitBlock(32, SelfMha()))


class EncoderLayers(nn.Module):
    """PyTorch's encoder layers on patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Queries(nn.Module):
    """A detector with learnt queries and PyTorch's decoder layers."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, dim, 3, 2, 1))
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(dim, 4, 48, batch_first=True), 1)
        self.query, self.cls, self.box = nn.Embedding(6, dim), nn.Linear(dim, 4), Mlp(dim, 32)
        self.last = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        memory = self.cnn(x).flatten(2).permute(0, 2, 1)
        h = self.decoder(self.query.weight.unsqueeze(0).repeat(len(x), 1, 1), memory)
        return {"pred_logits": self.cls(h), "pred_boxes": self.last(F.relu(self.box(h))).sigmoid()}


class WindowBlock(nn.Module):
    """Attention inside windows of a stored size, shifted by a roll, a table of relative positions."""

    def __init__(self, dim: int, heads: int, window: int = 4, shift: int = 0) -> None:
        super().__init__()
        self.dim, self.window, self.shift, self.heads = dim, window, shift, heads
        self.norm, self.qkv, self.proj = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.02)
        ys, xs = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        flat = torch.stack([ys, xs]).flatten(1)
        relative = flat[:, :, None] - flat[:, None, :] + window - 1
        self.register_buffer("index", relative[0] * (2 * window - 1) + relative[1])
        self.mlp = nn.Sequential(nn.LayerNorm(dim), Mlp(dim, 2 * dim))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s, n = self.window, self.window**2
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2))
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, n, c)
        q, k, v = self.qkv(y).reshape(-1, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1)
        y = ((q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1) + bias).softmax(-1) @ v).transpose(1, 2)
        y = (
            self.proj(y.reshape(-1, n, c))
            .view(b, h // s, w // s, s, s, c)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(b, h, w, c)
        )
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.mlp(x)


class Windows(nn.Module):
    """Two window blocks and a merge of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.one, self.two = nn.Conv2d(3, 24, 2, 2), WindowBlock(24, 3), WindowBlock(24, 3, shift=2)
        self.merge_norm, self.reduce = nn.LayerNorm(96), nn.Linear(96, 48, bias=False)
        self.three, self.head = WindowBlock(48, 6), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(self.patch(x).permute(0, 2, 3, 1)))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.three(self.reduce(self.merge_norm(x))).mean((1, 2)))


class CrossModal(nn.Module):
    """Pictures attend to tokens, of another width, with einsum."""

    def __init__(self, dim: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.image = nn.Sequential(nn.Conv2d(3, dim, 3, 2, 1), nn.GELU(), nn.Conv2d(dim, dim, 3, 2, 1))
        self.text, self.kv = nn.Embedding(20, 24), nn.Linear(24, 2 * dim)
        self.q, self.out, self.head = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 4)

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        x = self.image(image).flatten(2).transpose(1, 2)
        b, n, _ = x.shape
        q = self.q(x).reshape(b, n, self.heads, -1)
        k, v = (t.reshape(b, t.shape[1], self.heads, -1) for t in self.kv(self.text(tokens)).chunk(2, -1))
        weight = torch.einsum("bnhd,bmhd->bhnm", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.out(torch.einsum("bhnm,bmhd->bnhd", weight, v).reshape(b, n, -1))
        return self.head(x.mean(1))


IMAGE, TOKENS = (2, 3, 16, 16), Ids((2, 8), 20)
NETS: tuple[UserNet, ...] = nets(
    "attention",
    (vit, IMAGE, "stored heads"),
    (split_heads, IMAGE, "stored heads"),
    (multihead_module, IMAGE, "stored heads"),
    (EncoderLayers, IMAGE, "stored heads"),
    (Queries, IMAGE, "stored heads", "dict output"),
    (Windows, IMAGE, "stored heads"),
    (CrossModal, (IMAGE, TOKENS), "stored heads", "two inputs"),
)
