"""Nets with several inputs, nested ones, outputs in structures, and nets that share their parts."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import Ids, UserNet, nets


def tower(i: int, o: int = 32) -> nn.Sequential:
    """Two convolutions and a global mean."""
    return nn.Sequential(
        *(nn.Conv2d(i, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, o, 3, 1, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


class TwoPictures(nn.Module):
    """Two pictures by different towers, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.depth = tower(3), tower(1)
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        return self.head(torch.cat([self.image(image), self.depth(depth)], 1))


class Siamese(nn.Module):
    """One tower for both pictures, a verdict on their difference."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.head = tower(1), nn.Linear(32, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head((self.tower(a) - self.tower(b)).abs())


class Triplet(nn.Module):
    """Embeddings of three pictures, made unit length, in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.embed = tower(3), nn.Linear(32, 8)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.normalize(self.embed(self.tower(x))) for x in (anchor, positive, negative))


class Dictionary(nn.Module):
    """A dict in, a dict of lists out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = tower(3), tower(3)
        self.heads = nn.ModuleList(nn.Linear(32, n) for n in (2, 3))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, list[Tensor]]:
        x = self.left(batch["left"]) * torch.sigmoid(self.right(batch["right"]))
        return {"logits": [head(x) for head in self.heads]}


class ByName(nn.Module):
    """Keyword inputs, one of them optional."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.kind, self.head = tower(3), nn.Embedding(5, 32), nn.Linear(32, 4)

    def forward(self, pixels: Tensor, kind: Tensor | None = None, scale: float = 1.0) -> Tensor:
        x = self.tower(pixels)
        return self.head(x if kind is None else x + scale * self.kind(kind))


class NestedInputs(nn.Module):
    """A pair, whose second is a dict, and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.table, self.head = tower(3), nn.Linear(6, 32), nn.Linear(32, 4)

    def forward(self, pair: tuple[Tensor, dict[str, Tensor]], more: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.tower(pair[0]) + F.relu(self.table(pair[1]["table"])) + sum(self.tower(m) for m in more)
        x = self.head(x)
        return x, {"norm": x.norm(dim=1)}


Prediction = namedtuple("Prediction", ["mean", "spread"])


class Named(nn.Module):
    """A named tuple of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.mean, self.spread = tower(3), nn.Linear(32, 2), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Prediction:
        x = self.tower(x)
        return Prediction(self.mean(x), F.softplus(self.spread(x)))


@dataclass
class Result:
    """Logits and features of a net."""

    logits: Tensor
    embedding: Tensor | None = None


class DataClass(nn.Module):
    """A dataclass as output."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.head = tower(3), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Result:
        return Result(logits=self.head(self.tower(x)))


class EarlyExits(nn.Module):
    """A classifier after each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 24), (24, 32), (32, 48)))
        self.exits = nn.ModuleList(nn.Linear(o, 4) for o in (24, 32, 48))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage, out in zip(self.stages, self.exits, strict=True):
            x = F.relu(stage(x))
            found.append(out(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return found


class Pooled(nn.Module):
    """Several pictures of a patient, pooled by attention over the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.v, self.u = tower(1), nn.Linear(32, 16), nn.Linear(32, 16)
        self.w, self.head = nn.Linear(16, 1), nn.Linear(32, 2)

    def forward(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        h = self.tower(bag.squeeze(0))
        a = self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h))).transpose(1, 0).softmax(1)
        return self.head(a @ h), a


class WithTable(nn.Module):
    """A picture and a table of categories and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.site = tower(3), nn.Embedding(4, 8)
        self.table = nn.Sequential(nn.Linear(3 + 8, 24), nn.BatchNorm1d(24), nn.SiLU())
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(56, 24), nn.SiLU(), nn.Linear(24, 1))

    def forward(self, image: Tensor, numbers: Tensor, site: Tensor) -> Tensor:
        table = self.table(torch.cat([numbers, self.site(site)], 1))
        return self.head(torch.cat([self.tower(image), table], -1)).squeeze(-1)


class SharedHead(nn.Module):
    """One head and one norm for maps of two branches that meet in a third place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(3, 32, 5, 2, 2)
        self.norm, self.mix, self.head = nn.BatchNorm2d(32), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = F.relu(self.norm(self.a(x))), F.relu(self.norm(self.b(x)))
        return self.head(self.mix(a)), self.head(self.mix(b)), self.head(torch.maximum(a, b))


class Features(nn.Module):
    """Returns its features as well as its logits: the last features must keep their shape."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU())
        self.last, self.head = nn.Conv2d(32, 16, 3, 2, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.last(self.trunk(x))
        return self.head(x.mean((2, 3))), x


PICTURE, GREY = (2, 3, 12, 12), (2, 1, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "several",
    (TwoPictures, (PICTURE, GREY), "two inputs"),
    (Siamese, (GREY, GREY), "two inputs", "shared"),
    (Triplet, (PICTURE, PICTURE, PICTURE), "three inputs", "shared"),
    (Dictionary, {"left": PICTURE, "right": PICTURE}, "dict input", "dict output"),
    (ByName, {"pixels": PICTURE, "kind": Ids((2,), 5)}, "dict input"),
    (NestedInputs, ((PICTURE, {"table": (2, 6)}), [PICTURE, PICTURE]), "nested inputs"),
    (Named, PICTURE, "own output"),
    (DataClass, PICTURE, "own output"),
    (EarlyExits, PICTURE, "list output"),
    (Pooled, (1, 3, 1, 12, 12), "several outputs"),
    (WithTable, (PICTURE, (2, 3), Ids((2,), 4)), "three inputs"),
    (SharedHead, PICTURE, "shared", "several outputs"),
    (Features, PICTURE, "several outputs"),
)
