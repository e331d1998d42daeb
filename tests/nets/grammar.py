"""Random nets: a grammar of layers, parts, views, gates, norms, numbers and joins, each a few lines of PyTorch.

A net is written as a tree of plain tuples (kind, number, children): the number settles what the kind leaves open (how
many parts, which activation), so a failing net prints as what it is and is built again from it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

Spec = tuple[str, int, tuple["Spec", ...]]
SIZE = 6
SMOOTH: tuple[Callable[[Tensor], Tensor], ...] = (F.relu, torch.tanh, torch.sigmoid, F.gelu, F.hardswish, F.elu)
UNLIKE: tuple[Callable[[Tensor], Tensor], ...] = (
    *(F.relu, torch.sigmoid, torch.neg, torch.sin, lambda x: x),
    *(lambda x: x.roll(1, 2), lambda x: x.flip(3), lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: x * 0.3),
)


class Function(nn.Module):
    """A function of the input and of the layers that it uses."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module, **stored: int) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)
        for name, value in stored.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


Made = tuple[nn.Module, int]
"""A module and the number of channels that it returns."""


def _layers(kind: str, c: int, chance: random.Random) -> Made:
    o, groups = chance.choice((8, 12, 16, 20)), chance.choice([g for g in (2, 4) if c % g == 0] or [1])
    if kind == "grouped":
        return nn.Conv2d(c, 2 * c if c < 12 else c, 3, 1, 1, groups=groups), 2 * c if c < 12 else c
    if kind == "depthwise":
        return nn.Conv2d(c, c, 3, 1, 1, groups=c), c
    if kind == "transposed":
        return nn.ConvTranspose2d(c, o, 3, 1, 1), o
    if kind == "tokens":
        return Function(lambda x, fc: fc(x.flatten(2).mT).mT.reshape(len(x), -1, SIZE, SIZE), nn.Linear(c, o)), o
    if kind == "twice":
        return Function(lambda x, conv: conv(conv(x).relu()), nn.Conv2d(c, c, 3, 1, 1)), c
    if kind == "attention":
        return Function(_attend(4), nn.Linear(c, 3 * 16), nn.Linear(16, o)), o
    return nn.Conv2d(c, o, chance.choice((1, 3)), padding="same"), o


def _attend(heads: int) -> Callable[..., Tensor]:
    def function(x: Tensor, qkv: nn.Module, out: nn.Module) -> Tensor:
        b, n = len(x), SIZE * SIZE
        q, k, v = qkv(x.flatten(2).mT).reshape(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
        y = (q @ k.mT * 0.3).softmax(-1) @ v
        return out(y.transpose(1, 2).reshape(b, n, -1)).mT.reshape(b, -1, SIZE, SIZE)

    return function


def _norms(kind: str, c: int, chance: random.Random) -> Made:
    groups = chance.choice([g for g in (1, 2, 4) if c % g == 0])
    made = {
        "batch_norm": lambda: nn.BatchNorm2d(c),
        "group_norm": lambda: nn.GroupNorm(groups, c),
        "layer_norm": lambda: Function(
            lambda x, norm: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(c)
        ),
        "map_norm": lambda: nn.LayerNorm([c, SIZE, SIZE]),
        "activation": lambda: Function(chance.choice(SMOOTH)),
        "prelu": lambda: nn.PReLU(c),
        "instance_norm": lambda: Function(F.instance_norm),
        "bare_norm": lambda: Function(lambda x: F.layer_norm(x, x.shape[1:])),
        "bare_groups": lambda: Function(lambda x: F.group_norm(x, groups)),
        "unit_length": lambda: Function(lambda x: F.normalize(x, dim=1)),
        "pixel_norm": lambda: Function(lambda x: x * (x.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt()),
        "centered": lambda: Function(lambda x: x - x.mean(1, keepdim=True)),
        "softmax": lambda: Function(lambda x: 5 * x.softmax(1)),
        "response": lambda: Function(lambda x: F.local_response_norm(x, 3)),
        "by_root": lambda: Function(lambda x: x / x.shape[1] ** 0.5),
        "by_number": lambda: Function(lambda x: x * (100 / x[0].numel())),
        "by_branch": lambda: Function(lambda x: x.relu() if x.shape[1] >= 8 else x),
        "by_slope": lambda: Function(lambda x: F.leaky_relu(x, 1 / x.size(1))),
    }
    return made[kind](), c


def _parts(kind: str, c: int, chance: random.Random) -> Made:
    n = chance.choice([n for n in (2, 3, 4) if c % n == 0] or [1])
    functions, order = chance.sample(UNLIKE, n), chance.sample(range(n), n)

    def joined(parts: tuple[Tensor, ...]) -> Tensor:
        parts = tuple(function(part) for function, part in zip(functions, parts, strict=True))
        return torch.cat([parts[k] for k in order], 1)

    def in_place(x: Tensor, where: slice) -> Tensor:
        x = x.clone()
        x[:, where] = functions[0](x[:, where]) if functions[0] is not UNLIKE[4] else -x[:, where]
        return x

    first = chance.choice((3, 4, 5))
    half = nn.Conv2d(c // n, c // n, 3, 1, 1)
    made = {
        "chunks": lambda: Function(lambda x: joined(x.chunk(n, 1))),
        "slices": lambda: Function(
            lambda x: joined(tuple(x[:, k * (x.shape[1] // n) : (k + 1) * (x.shape[1] // n)] for k in range(n)))
        ),
        "unbound": lambda: Function(lambda x: joined(x.unflatten(1, (n, -1)).unbind(1))),
        "interleaved": lambda: Function(lambda x: joined(x.unflatten(1, (-1, n)).unbind(2))),
        "literal": lambda: Function(lambda x: torch.cat([functions[0](x[:, :first]), functions[-1](x[:, first:])], 1)),
        "stored": lambda: Function(lambda x: joined(x.split(c // n, 1))),
        "part_conv": lambda: Function(
            lambda x, conv: (lambda first, *rest: torch.cat([conv(first), *rest], 1))(*x.chunk(n, 1)), half
        ),
        "in_place_share": lambda: Function(lambda x: in_place(x, slice(x.shape[1] // n))),
        "in_place_literal": lambda: Function(lambda x: in_place(x, slice(first))),
        "in_place_stride": lambda: Function(lambda x: in_place(x, slice(None, None, 2))),
        "glu": lambda: nn.Sequential(nn.Conv2d(c, 2 * c, 1), nn.GLU(1)),
        "half_gate": lambda: nn.Sequential(
            nn.Conv2d(c, 2 * c, 1), Function(lambda x: (lambda u, v: u * v.sigmoid())(*x.chunk(2, 1)))
        ),
        "both_signs": lambda: nn.Sequential(Function(lambda x: torch.cat([x, -x], 1).relu()), nn.Conv2d(2 * c, c, 1)),
    }
    return made[kind](), c


def _views(kind: str, c: int, chance: random.Random) -> Made:
    n = chance.choice([n for n in (2, 3, 4) if c % n == 0] or [1])
    scale = nn.ParameterList([nn.Parameter(torch.randn(n, 1, 1, 1))])
    squeeze, back, one = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1), nn.Conv2d(c, 1, 1)
    gates = nn.Conv2d(c, n, 1)
    made = {
        "shuffle": lambda: Function(lambda x: x.unflatten(1, (n, -1)).transpose(1, 2).flatten(1, 2)),
        "unshuffle": lambda: Function(lambda x: x.unflatten(1, (-1, n)).transpose(1, 2).flatten(1, 2)),
        "pixels": lambda: Function(lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2).tanh(), 2)),
        "group_scale": lambda: Function(lambda x, scale: (x.unflatten(1, (n, -1)) * scale[0]).flatten(1, 2), scale),
        "group_gate": lambda: Function(
            lambda x, gates: (x.unflatten(1, (n, -1)) * gates(x).unsqueeze(2).sigmoid()).flatten(1, 2), gates
        ),
        "group_deviation": lambda: Function(
            lambda x: (lambda y: (y / (y.std(2, keepdim=True) + 0.1)).flatten(1, 2))(x.unflatten(1, (n, -1)))
        ),
        "mirrored": lambda: Function(lambda x: x + 0.5 * x.flip(1)),
        "neighbours": lambda: Function(lambda x: x * x.roll(1, 1).sigmoid()),
        "literal_view": lambda: Function(lambda x: x.reshape(-1, c, SIZE * SIZE).softmax(-1).view(-1, c, SIZE, SIZE)),
        "channel_gate": lambda: Function(
            lambda x, a, b: x * b(a(x.mean((2, 3), keepdim=True)).relu()).sigmoid(), squeeze, back
        ),
        "place_gate": lambda: Function(lambda x, one: x * one(x).sigmoid(), one),
        "mean_gate": lambda: Function(lambda x: x * x.mean(1, keepdim=True).sigmoid()),
        "most_gate": lambda: Function(lambda x: x * x.amax(1, keepdim=True).sigmoid()),
    }
    return made[kind](), c


class Join(nn.Module):
    """The input, or one branch, together with another branch."""

    def __init__(self, kind: str, c: int, branches: list[nn.Module], widths: list[int]) -> None:
        super().__init__()
        self.kind, self.branches = kind, nn.ModuleList(branches)
        same = kind in ("residual", "product", "larger")
        self.fit = nn.ModuleList(nn.Conv2d(width, c, 1) if same and width != c else nn.Identity() for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        parts = [fit(branch(x)) for fit, branch in zip(self.fit, self.branches, strict=True)]
        if self.kind == "concat":
            return torch.cat([x, *parts], 1)
        if self.kind == "residual":
            return x + sum(parts)
        if self.kind == "product":
            return x * torch.sigmoid(parts[0])
        return torch.maximum(x, parts[-1])


LAYERS = ("conv", "grouped", "depthwise", "transposed", "tokens", "twice", "attention")
NORMS = (
    *("batch_norm", "group_norm", "layer_norm", "map_norm", "activation", "prelu", "instance_norm", "bare_norm"),
    *("bare_groups", "unit_length", "pixel_norm", "centered", "softmax", "response"),
    *("by_root", "by_number", "by_branch", "by_slope"),
)
PARTS = (
    *("chunks", "slices", "unbound", "interleaved", "literal", "stored", "part_conv"),
    *("in_place_share", "in_place_literal", "in_place_stride", "glu", "half_gate", "both_signs"),
)
VIEWS = (
    *("shuffle", "unshuffle", "pixels", "group_scale", "group_gate", "group_deviation", "mirrored", "neighbours"),
    *("literal_view", "channel_gate", "place_gate", "mean_gate", "most_gate"),
)
JOINS = ("residual", "concat", "product", "larger")
MAKERS: dict[str, Callable[[str, int, random.Random], Made]] = {
    **dict.fromkeys(LAYERS, _layers),
    **dict.fromkeys(NORMS, _norms),
    **dict.fromkeys(PARTS, _parts),
    **dict.fromkeys(VIEWS, _views),
}


def chain(specs: tuple[Spec, ...], c: int) -> Made:
    """Pieces one after another, the first on `c` channels."""
    made: list[nn.Module] = []
    for kind, number, children in specs:
        if kind in JOINS:
            halves = (children[::2], children[1::2]) if len(children) > 2 else (children,)
            branches, widths = zip(*(chain(half, c) for half in halves), strict=True)
            made.append(Join(kind, c, list(branches), list(widths)))
            c = c + sum(widths) if kind == "concat" else c
        else:
            piece, c = MAKERS[kind](kind, c, random.Random(number))
            made.append(piece)
    return nn.Sequential(*made), c


def grown(specs: tuple[Spec, ...]) -> nn.Module:
    """A net of (B, 3, 6, 6) inputs: a stem, the pieces, a convolution, a classifier."""
    middle, c = chain(specs, 12)
    head = (nn.Conv2d(c, 12, 3, 1, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))
    return nn.Sequential(nn.Conv2d(3, 12, 3, 1, 1), nn.Tanh(), middle, *head)


def specs() -> st.SearchStrategy[tuple[Spec, ...]]:
    """Random nets of one to five pieces, joins of up to four more inside them."""
    numbers = st.integers(0, 999)
    leaves = st.one_of(
        *(st.tuples(st.sampled_from(group), numbers, st.just(())) for group in (LAYERS, NORMS, PARTS, VIEWS))
    )
    joins = st.tuples(st.sampled_from(JOINS), numbers, st.lists(leaves, min_size=1, max_size=4).map(tuple))
    return st.lists(st.one_of(leaves, leaves, joins), min_size=1, max_size=5).map(tuple)
