"""Nets and files as users bring them: their own code beside them, weights in every wrapping."""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

CODE = '''import torch
from torch import nn

from beside import SIDE


class Net(nn.Module):
    """Tells which of three channels is brightest, when its weights are those of `clever`."""

    def __init__(self, num_classes=3, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, SIDE, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def features(self, images):
        return self.body(self.stem(images)).mean((2, 3))

    def forward(self, images):
        return self.head(self.features(images))


class Answers(Net):
    def forward(self, images):
        features = self.features(images)
        return {"features": features, "logits": self.head(features)}


class Needs(Net):
    def __init__(self, width, *, deep):
        super().__init__(3, width)


def make_net(width=8):
    return Net(width=width)


def make_nothing():
    return "no net"


def broken():
    return Net(width="wide")


ready = Net()
'''


def write_code(folder):
    """my_model.py and what it imports from its own folder."""
    (folder / "my_model.py").write_text(CODE)
    (folder / "beside.py").write_text("SIDE = 3\n")
    return folder / "my_model.py"


def net_of(path, name="Net", **named):
    """A net of the code at `path`, as its owner makes it."""
    from solution.models.own_code import OwnNet

    return OwnNet(where=str(path), attribute=name, named=tuple(named.items())).build().eval()


def clever(net):
    """Weights with which it answers blue, green, red for the brightest channel, in that order."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.01)
        net.stem[1].weight.fill_(1.0)
        for channel in range(3):
            net.stem[0].weight[channel] = 0
            net.stem[0].weight[channel, channel, 1, 1] = 1
            net.stem[1].bias[channel] = 3
            net.body[0].weight[channel] = 0
            net.body[0].weight[channel, channel, 1, 1] = 1
            net.head.weight[2 - channel, channel] = 10
    return net


def wrapped(net):
    """{file name: what a training writes into it}: the same weights each time."""
    state = net.state_dict()
    args = argparse.Namespace(lr=0.1, data=Path("photos"))
    lightning = {f"model._orig_mod.{name}": value for name, value in state.items()}
    stale = {name: torch.zeros_like(value) for name, value in state.items()}
    return {
        "plain.pth": state,
        "plain.bin": dict(state),
        "ddp.pt": {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}, "args": args},
        "lightning.ckpt": {
            "state_dict": {**lightning, "criterion.weight": torch.ones(3), "metric.count": torch.zeros(1)},
            "hyper_parameters": {"lr": 0.1},
            "callbacks": {"best": torch.zeros(0)},
            "loops": {"fit": {"epoch": 1}},
        },
        "ema.pth": {"state_dict_ema": state, "epoch": 9},
        "both.pth": {"model": state, "ema": stale},
        "nested.pth": {"model": {"state_dict": {f"net.backbone.{name}": value for name, value in state.items()}}},
        "compiled.pth": {"model_state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}},
        "profiled.pth": state | {"stem.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
        "uncounted.th": {name: value for name, value in state.items() if "num_batches" not in name},
    }


class Bomb:
    """An object whose pickle writes a file when it is read."""

    def __init__(self, flag):
        self.flag = str(flag)

    def __reduce__(self):
        return open, (self.flag, "w")


class BombNet(nn.Linear):
    """A whole module whose pickle does the same."""

    flag = ""

    def __reduce__(self):
        return open, (self.flag, "w")


def lying(flag):
    """A state dict with a planted object."""
    return {"state_dict": {"head.weight": torch.ones(1)}, "extra": Bomb(flag)}


sys.modules.setdefault("foreign", sys.modules[__name__])
