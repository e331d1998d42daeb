"""What people hand over besides a plain net and one float tensor: containers, types, wrappers, outputs of classes."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from nets.catalogue import Floats, Ids, UserNet, nets

Answer = namedtuple("Answer", ["logits", "features"])


def convs(*widths: int, i: int = 3) -> nn.Sequential:
    """3 x 3 convolutions with ReLU."""
    pairs = zip((i, *widths), widths, strict=False)
    return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())))


class Answers(nn.Module):
    """A classifier whose answer is a tuple with names; the features are part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = convs(24, 32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Answer:
        x = self.body(x).mean((2, 3))
        return Answer(self.head(x), x.norm(dim=1))


class Output(OrderedDict[str, Any]):
    """A dictionary whose entries are fields, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class Dictionary(nn.Module):
    """Keyword arguments with defaults, a dictionary of a class of its own, a tuple on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = convs(24, 32, 32), nn.Linear(32, 5)

    def forward(self, pixel_values: Tensor, mask: Tensor | None = None, return_dict: bool = True) -> Any:
        x = self.body(pixel_values)
        x = x if mask is None else x * mask[:, None]
        logits = self.head(x.mean((2, 3)))
        return Output(logits=logits) if return_dict else (logits,)


class Nested(nn.Module):
    """A dictionary of a tuple and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.depth, self.head = convs(16, 24), convs(16, 24, i=1), nn.Linear(56, 4)
        self.words = nn.Embedding(10, 8)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        image, depth = batch["views"]
        parts = [self.image(image).mean((2, 3)), self.depth(depth).mean((2, 3)), self.words(batch["words"][0]).mean(1)]
        return self.head(torch.cat(parts, 1))


class Lazy(nn.Module):
    """Layers that take their sizes from the first forward, some after others."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LazyConv2d(24, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(32, 3), nn.ReLU()
        )
        self.up, self.head = nn.LazyConvTranspose2d(32, 2, 2), nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.up(self.body(x))).mean((2, 3)))


class Scaled(nn.Module):
    """A parametrization with a scale of its own for every row."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(rows) + 0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.scale.view(-1, *[1] * (weight.ndim - 1))


class Bounded(nn.Module):
    """A parametrization without parameters."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


def parametrized_rows() -> nn.Module:
    """A scale for every row of every convolution, by torch's parametrize."""
    net = nn.Sequential(convs(24, 32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
    for conv in [one for one in net.modules() if isinstance(one, nn.Conv2d)]:
        parametrize.register_parametrization(conv, "weight", Scaled(conv.out_channels))
    return net


def parametrized_twice() -> nn.Module:
    """Two parametrizations of one weight, and one of a bias."""
    net = nn.Sequential(convs(24, 32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
    parametrize.register_parametrization(net[0][2], "weight", Bounded())
    parametrizations.spectral_norm(net[0][2])
    parametrize.register_parametrization(net[0][4], "bias", Bounded())
    return net


def weight_norm_of_transposed() -> nn.Module:
    """Weight norm on convolutions, transposed ones and a linear layer."""
    up = parametrizations.weight_norm(nn.ConvTranspose2d(32, 24, 2, 2))
    return nn.Sequential(
        *(parametrizations.weight_norm(nn.Conv2d(3, 32, 3, 2, 1)), nn.ReLU(), up, nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), parametrizations.weight_norm(nn.Linear(24, 16)), nn.Linear(16, 5)),
    )


def in_double() -> nn.Module:
    """All in double precision."""
    return nn.Sequential(convs(24, 32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)).double()


def in_bfloat() -> nn.Module:
    """All in bfloat16."""
    return nn.Sequential(convs(24, 32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)).bfloat16()


class Casting(nn.Module):
    """Takes single precision, computes a part in half precision, norms in single."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = convs(24), convs(32, 32, i=24), nn.Linear(32, 5)
        self.norm = nn.GroupNorm(4, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).to(self.head.weight.dtype)
        return self.head(self.body(x).mean((2, 3)))


class Averaging(nn.Module):
    """The net and its slow copy, which only answers in training."""

    def __init__(self) -> None:
        super().__init__()
        make = [nn.Sequential(convs(24, 32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)) for _ in "ab"]
        self.student, self.teacher = make
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        return (self.student(x), self.teacher(x)) if self.training else self.student(x)


class Frozen(nn.Module):
    """A frozen body under no_grad, a head that trains; counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = convs(24, 32, 32).requires_grad_(False), nn.Linear(32, 5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            x = self.body(x)
        return self.head(x.mean((2, 3)))


class Mapping(nn.Module):
    """Layers chosen by name from dictionaries, hooks that keep features."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}
        self.layers = nn.ModuleDict(
            {"one": nn.Conv2d(3, 24, 3), "two": nn.Conv2d(24, 32, 3), "three": nn.Conv2d(32, 32, 1)}
        )
        self.layers["two"].register_forward_hook(self.keep)
        self.act = nn.ModuleDict({"relu": nn.ReLU(), "gelu": nn.GELU()})
        self.head = nn.Linear(64, 5)

    def keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.kept["two"] = output

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.layers.items():
            x = self.act["gelu" if name == "two" else "relu"](layer(x))
        return self.head(torch.cat([x, self.kept["two"]], 1).mean((2, 3)))


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "forms",
    *((build, SHAPE, "output") for build in (Answers, Averaging, Frozen, Mapping)),
    *(
        (build, SHAPE, "computed weight")
        for build in (parametrized_rows, parametrized_twice, weight_norm_of_transposed)
    ),
    (Dictionary, {"pixel_values": SHAPE, "mask": (2, 12, 12)}, "several inputs"),
    (Nested, ({"views": (SHAPE, (2, 1, 12, 12)), "words": [Ids((2, 4), 10)]},), "several inputs"),
    (Lazy, SHAPE, "lazy"),
    (in_double, Floats(SHAPE, torch.float64), "type"),
    (in_bfloat, Floats(SHAPE, torch.bfloat16), "type"),
    (Casting, SHAPE, "type"),
)
