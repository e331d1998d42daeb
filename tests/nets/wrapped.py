"""Nets inside what people wrap them in, in other number types, and in forms that are no longer modules to cut."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nets.catalogue import Floats, UserNet, nets


def plain() -> nn.Module:
    """The net inside."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)),
    )


def data_parallel() -> nn.Module:
    """In `DataParallel`, as nets of several cards are kept."""
    return nn.DataParallel(plain())


def compiled() -> nn.Module:
    """Through `torch.compile`."""
    return torch.compile(plain())


def averaged() -> nn.Module:
    """An average of weights over training."""
    return AveragedModel(plain())


def scripted() -> nn.Module:
    """Through TorchScript."""
    return torch.jit.script(plain())


def traced() -> nn.Module:
    """Through a trace."""
    return torch.jit.trace(plain().eval(), torch.zeros(1, 3, 12, 12))


def symbolic() -> nn.Module:
    """A graph module of torch.fx, which still is an ordinary module."""
    return torch.fx.symbolic_trace(plain())


def exported() -> nn.Module:
    """The module of an exported program."""
    net = torch.export.export(plain().eval(), (torch.zeros(2, 3, 12, 12),)).module()
    net.training = False
    return net


def half() -> nn.Module:
    """In float16."""
    return plain().half()


def brain() -> nn.Module:
    """In bfloat16."""
    return plain().bfloat16()


def double() -> nn.Module:
    """In float64."""
    return plain().double()


def channels_last() -> nn.Module:
    """With channels last in memory."""
    return plain().to(memory_format=torch.channels_last)


def frozen_stem() -> nn.Module:
    """With a stem that does not learn and norms in evaluation mode."""
    net = plain()
    net[0].requires_grad_(False)
    net[1].eval()
    return net


def hooked() -> nn.Module:
    """With a forward hook that keeps features, as tools for looking inside leave it."""
    net = plain()
    net.kept = {}
    net[3].register_forward_hook(lambda module, inputs, output: net.kept.update(features=output.detach()))
    return net


class Scripted(nn.Module):
    """A scripted part inside an ordinary net."""

    def __init__(self) -> None:
        super().__init__()
        self.part = torch.jit.script(nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()))
        self.a, self.b, self.c = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 32, 3), nn.Conv2d(32, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.part(self.a(x))).relu()).mean((2, 3))


class Checkpointed(nn.Module):
    """Recomputes its middle in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 32, 3), nn.Conv2d(32, 32, 3)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.utils.checkpoint.checkpoint(lambda t: self.b(self.a(t).relu()).relu(), x, use_reentrant=False)
        return self.head(self.c(x).relu().mean((2, 3)))


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "wrapped",
    *((build, SHAPE, "wrapper") for build in (data_parallel, compiled, averaged)),
    *((build, SHAPE, "other form", "uncuttable") for build in (scripted, traced, exported, Scripted)),
    (symbolic, SHAPE, "other form"),
    (half, Floats(SHAPE, torch.float16), "number type"),
    (brain, Floats(SHAPE, torch.bfloat16), "number type"),
    (double, Floats(SHAPE, torch.float64), "number type"),
    *((build, SHAPE) for build in (channels_last, frozen_stem, hooked, Checkpointed)),
)
