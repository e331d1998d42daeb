"""Models of tokens: causal blocks, rotary positions, encoders in the manner of a model hub, a reader of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import Ids, UserNet, nets


class CausalBlock(nn.Module):
    """A causal block: split by a stored width, heads by division, a registered mask."""

    def __init__(self, n_embd: int = 32, n_head: int = 4, block: int = 16) -> None:
        super().__init__()
        self.n_head, self.n_embd = n_head, n_embd
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.c_fc, self.out = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)
        self.register_buffer("mask", torch.tril(torch.ones(block, block)).view(1, 1, block, block))

    def attend(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (p.view(b, t, self.n_head, c // self.n_head).transpose(1, 2) for p in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (k.size(-1) ** -0.5)
        att = att.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf")).softmax(-1)
        return self.c_proj((att @ v).transpose(1, 2).contiguous().view(b, t, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.ln_1(x))
        return x + self.out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Language(nn.Module):
    """A small language model with tied embeddings."""

    def __init__(self, vocabulary: int = 20, tied: bool = True) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, 32), nn.Embedding(16, 32)
        self.h, self.ln_f = nn.ModuleList(CausalBlock() for _ in range(2)), nn.LayerNorm(32)
        self.lm_head = nn.Linear(32, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class RmsNorm(nn.Module):
    """Root-mean-square norm, by hand."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class RotaryBlock(nn.Module):
    """Rotary positions, grouped keys and values repeated, gated MLP, RMS norms."""

    def __init__(self, dim: int = 32, heads: int = 4, kv: int = 2) -> None:
        super().__init__()
        self.heads, self.kv, self.head_dim = heads, kv, dim // heads
        self.wq, self.wo = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.wk, self.wv = (nn.Linear(dim, kv * self.head_dim, bias=False) for _ in range(2))
        self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((dim, 48), (dim, 48), (48, dim)))
        self.n1, self.n2 = RmsNorm(dim), RmsNorm(dim)

    def rotate(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * 0.1 ** torch.arange(half, dtype=x.dtype)
        cos, sin = (torch.cat([f(angles)] * 2, -1)[None, :, None] for f in (torch.cos, torch.sin))
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        y = self.n1(x)
        q = self.rotate(self.wq(y).view(b, n, self.heads, self.head_dim)).transpose(1, 2)
        k = self.rotate(self.wk(y).view(b, n, self.kv, self.head_dim)).transpose(1, 2)
        v = self.wv(y).view(b, n, self.kv, self.head_dim).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.kv, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.wo(y.transpose(1, 2).reshape(b, n, -1))
        y = self.n2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class RotaryModel(nn.Module):
    """Tokens to logits through rotary blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(20, 32), nn.Sequential(RotaryBlock(), RotaryBlock())
        self.norm, self.out = RmsNorm(32), nn.Linear(32, 20, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.norm(self.layers(self.embed(ids))))


@dataclass
class ModelOutput:
    """What a model returns, by name."""

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class Encoder(nn.Module):
    """In the manner of a model hub: a config, masks, split heads by a method, outputs in a class of their own."""

    def __init__(self, hidden_size: int = 32, num_attention_heads: int = 4) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.attention_head_size = hidden_size // num_attention_heads
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        self.embeddings, self.positions = nn.Embedding(20, hidden_size), nn.Embedding(16, hidden_size)
        self.query, self.key, self.value = (nn.Linear(hidden_size, self.all_head_size) for _ in range(3))
        self.dense, self.layer_norm = nn.Linear(hidden_size, hidden_size), nn.LayerNorm(hidden_size, eps=1e-12)
        self.intermediate, self.output = nn.Linear(hidden_size, 64), nn.Linear(64, hidden_size)
        self.pooler, self.classifier = nn.Linear(hidden_size, hidden_size), nn.Linear(hidden_size, 3)

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        shape = (*x.size()[:-1], self.num_attention_heads, self.attention_head_size)
        return x.view(shape).permute(0, 2, 1, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> ModelOutput:
        x = self.embeddings(input_ids) + self.positions(torch.arange(input_ids.shape[1]))[None]
        q, k, v = (self.transpose_for_scores(f(x)) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / self.attention_head_size**0.5
        scores = scores + (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e4
        y = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        x = self.layer_norm(x + self.dense(y.view(*y.size()[:-2], self.all_head_size)))
        x = self.layer_norm(x + self.output(F.gelu(self.intermediate(x))))
        return ModelOutput(logits=self.classifier(torch.tanh(self.pooler(x[:, 0]))))


TOKENS = Ids((2, 8), 20)
NETS: tuple[UserNet, ...] = nets(
    "tokens",
    (Language, TOKENS, "stored heads", "shared"),
    (RotaryModel, TOKENS, "stored heads", "over channels"),
    (Encoder, {"input_ids": TOKENS, "attention_mask": Ids((2, 8), 2)}, "stored heads", "dict input", "own output"),
)
