"""Plain classifiers as students, tutorials and course notes write them."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class Tutorial(nn.Module):
    """Two convolutions, three linear layers, and the sizes written out in the view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Digits(nn.Module):
    """A net for digits with dropout and a log-softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3)
        self.conv2 = nn.Conv2d(16, 32, 3)
        self.drop1, self.drop2 = nn.Dropout2d(0.25), nn.Dropout(0.5)
        self.fc1 = nn.Linear(32 * 12 * 12, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = torch.flatten(self.drop1(x), 1)
        return F.log_softmax(self.fc2(self.drop2(F.relu(self.fc1(x)))), dim=1)


class AlexLike(nn.Module):
    """Features and classifier as two sequences, with sizes written out between them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(True), nn.MaxPool2d(2)),
            *(nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)),
            *(nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(True), nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(True)),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(32 * 4 * 4, 96), nn.ReLU(True), nn.Dropout(), nn.Linear(96, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.size(0), 32 * 4 * 4))


class GapView(nn.Module):
    """Global pooling, then a view whose width is written out."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 32, 48, 64]
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.max_pool2d(F.relu(layer(x)), 2)
        return self.fc(self.gap(x).view(-1, 64))


class StoredWidth(nn.Module):
    """Keeps the width of its features as an attribute and views with it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.hidden = nn.Linear(width * 16, 64)
        self.head = nn.Linear(64, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.body(self.stem(x)), 4)
        x = x.reshape(x.shape[0], self.width * 4 * 4)
        return self.head(F.relu(self.hidden(x)))


class FeatureSize(nn.Module):
    """Computes the number of flattened features from a trial forward in its constructor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 20, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(20, 40, 5), nn.Tanh())
        self.flat = self.num_flat_features(self.conv(torch.zeros(1, 1, 20, 20)))
        self.fc = nn.Sequential(nn.Linear(self.flat, 50), nn.Tanh(), nn.Linear(50, 10))

    def num_flat_features(self, x: Tensor) -> int:
        number = 1
        for size in x.size()[1:]:
            number *= size
        return number

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc(x.view(-1, self.num_flat_features(x)))


def sequential() -> nn.Module:
    """One long sequence with named layers."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (i, o) in enumerate(((3, 16), (16, 24), (24, 32), (32, 32))):
        layers[f"conv{number}"] = nn.Conv2d(i, o, 3, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(o)
        layers[f"act{number}"] = nn.LeakyReLU(0.1)
    layers |= {"pool": nn.AdaptiveAvgPool2d(2), "flat": nn.Flatten(), "fc": nn.Linear(128, 10)}
    return nn.Sequential(layers)


class Functional(nn.Module):
    """No layers: parameters in a list, and functions that use them."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(16, 3, 3, 3), (24, 16, 3, 3), (32, 24, 3, 3)]
        self.kernels = nn.ParameterList(nn.Parameter(torch.randn(shape) * 0.1) for shape in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(shape[0])) for shape in shapes)
        self.out = nn.Parameter(torch.randn(10, 32) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            x = F.silu(F.conv2d(x, kernel, bias, padding=1))
        return x.mean((2, 3)) @ self.out.t()


class MatrixNet(nn.Module):
    """A perceptron with its own weight matrices, biases and a matrix product each."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(64, 48) * 0.1), nn.Parameter(torch.zeros(48))
        self.w2, self.b2 = nn.Parameter(torch.randn(48, 48) * 0.1), nn.Parameter(torch.zeros(48))
        self.w3 = nn.Parameter(torch.randn(48, 5) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(torch.mm(x.flatten(1), self.w1) + self.b1)
        x = torch.tanh(torch.addmm(self.b2, x, self.w2))
        return x @ self.w3


class VggLike(nn.Module):
    """Layers made from a list of widths, with stored list of features and a loop over them."""

    def __init__(self, plan: tuple[int | str, ...] = (16, 16, "M", 32, 32, "M", 48, 48, "M")) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for step in plan:
            if step == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(width, int(step), 3, padding=1), nn.BatchNorm2d(int(step)), nn.ReLU(inplace=True)]
                width = int(step)
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(width * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.fc(x.view(len(x), -1))


class ThreeHeads(nn.Module):
    """Age, sex and mood from one trunk; a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(3, 24, 3, 2, 1), nn.PReLU(24), nn.Conv2d(24, 48, 3, 2, 1), nn.PReLU(48)),
            *(nn.Conv2d(48, 48, 3, padding=1), nn.PReLU(48), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        )
        self.heads = nn.ModuleDict({"age": nn.Linear(48, 1), "sex": nn.Linear(48, 2), "mood": nn.Linear(48, 5)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x)
        return {name: head(x) for name, head in self.heads.items()}


class TwoConstants(nn.Module):
    """Normalizes its input by registered constants, scales logits by a learnt temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.2]).view(1, 3, 1, 1))
        self.a, self.b, self.c = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 32, 3), nn.Conv2d(32, 32, 3)
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.fc = nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.elu(self.c(F.elu(self.b(F.elu(self.a((x - self.mean) / self.std))))))
        return self.fc(x.amax((2, 3))) / self.temperature


class FlattenToOne(nn.Module):
    """A regression of one number for each picture, flattened to one dimension at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU()), nn.Conv2d(48, 1, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).view(-1)


NETS: tuple[UserNet, ...] = nets(
    "students",
    (Tutorial, (2, 3, 32, 32), "literal view"),
    (Digits, (2, 1, 28, 28)),
    (AlexLike, (2, 3, 32, 32), "literal view"),
    (GapView, (2, 3, 32, 32), "literal view"),
    (StoredWidth, (2, 3, 16, 16), "stored width"),
    (FeatureSize, (2, 1, 20, 20), "stored width"),
    (sequential, (2, 3, 12, 12)),
    (Functional, (2, 3, 12, 12), "own parameters"),
    (MatrixNet, (2, 1, 8, 8), "own parameters"),
    (VggLike, (2, 3, 16, 16)),
    (ThreeHeads, (2, 3, 16, 16), "dict output"),
    (TwoConstants, (2, 3, 12, 12)),
    (FlattenToOne, (2, 3, 16, 16), "one dimension"),
)
