"""Honest nets pass; every planted cheat is refused, a big one and one of 1 % of the net's MACs."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from solution.evaluate.audit import TOLERANCE, audit
from solution.evaluate.cost import macs
from solution.models.shufflenet import ShuffleNet

IMAGE = torch.zeros(1, 3, 80, 80)
SIZES = {"one percent": (8, 4), "big": (2, 16)}
"""Stride with which a cheat samples the image, filters it applies: 10,800 and 691,200 MACs, beside 1,083,210."""


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ShuffleNet(units=(2, 5, 2)).build(num_classes=9)


class Cheating(nn.Module):
    """A net whose answers also use a block that should cost nothing."""

    def __init__(self, net, block, stride):
        super().__init__()
        self.net, self.block, self.stride = net, block, stride

    def forward(self, x):
        return self.net(x) + self.block(x[:, :, :: self.stride, :: self.stride].contiguous()).mean((1, 2, 3))[:, None]


class Block(nn.Module):
    """Holds the weights (filters, 3, 3, 3) of a 3 x 3 convolution."""

    def __init__(self, filters):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(filters, 3, 3, 3))

    def columns(self, x):
        return F.unfold(x, 3, padding=1)  # (B, 27, H*W)

    def shifted(self, x):
        """Each weight's place in the kernel with the (B, H, W) plane that it multiplies."""
        padded, (height, width) = F.pad(x, (1, 1, 1, 1)), x.shape[2:]
        for channel in range(3):
            for row in range(3):
                for column in range(3):
                    plane = padded[:, channel, row : row + height, column : column + width]
                    yield (channel, row, column), plane


class Functional(Block):
    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1)


class Einsum(Block):
    def forward(self, x):
        return torch.einsum("fk,bkp->bfp", self.weight.flatten(1), self.columns(x))[:, :, None]


class Matmul(Block):
    def forward(self, x):
        return (self.weight.flatten(1) @ self.columns(x))[:, :, None]


class FunctionalLinear(Block):
    def forward(self, x):
        return F.linear(self.columns(x).transpose(1, 2), self.weight.flatten(1))[:, None]


class Scripted(Block):
    def __new__(cls, filters):
        plain = Functional(filters)
        return torch.jit.script(plain)


class ScriptedFunction(Block):
    convolve = staticmethod(torch.jit.script(F.conv2d)) if False else None

    def __init__(self, filters):
        super().__init__(filters)
        self.traced = torch.jit.trace(
            lambda x, w: torch.conv2d(x, w, padding=(1, 1)), (torch.ones(1, 3, 8, 8), self.weight.data)
        )

    def forward(self, x):
        return self.traced(x, self.weight)


class OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return F.conv2d(x, weight, padding=1)


class Autograd(Block):
    def forward(self, x):
        return OwnFunction.apply(x, self.weight)


class MultiplyAdd(Block):
    def forward(self, x):
        out = torch.zeros(len(x), len(self.weight), *x.shape[2:])
        for (channel, row, column), plane in self.shifted(x):
            out += plane[:, None] * self.weight[:, channel, row, column, None, None]
        return out


class MultiplyAddInPlace(Block):
    def forward(self, x):
        out = torch.zeros(len(x), len(self.weight), *x.shape[2:])
        for (channel, row, column), plane in self.shifted(x):
            out.addcmul_(plane[:, None], self.weight[:, channel, row, column, None, None])
        return out


class PythonNumbers(Block):
    def __init__(self, filters):
        super().__init__(filters)
        self.numbers = self.weight.tolist()

    def forward(self, x):
        out = [torch.zeros(len(x), *x.shape[2:]) for _ in self.numbers]
        for (channel, row, column), plane in self.shifted(x):
            for index, kernel in enumerate(self.numbers):
                out[index] = out[index] + plane * kernel[channel][row][column]
        return torch.stack(out, 1)


class Alpha(PythonNumbers):
    def forward(self, x):
        out = [torch.zeros(len(x), *x.shape[2:]) for _ in self.numbers]
        for (channel, row, column), plane in self.shifted(x):
            for index, kernel in enumerate(self.numbers):
                out[index] = torch.add(out[index], plane, alpha=kernel[channel][row][column])
        return torch.stack(out, 1)


class OuterProduct(Block):
    def forward(self, x):
        return (self.columns(x)[:, None] * self.weight.flatten(1)[None, :, :, None]).sum(2)[:, :, None]


class WeightsInDisguise(Block):
    def forward(self, x):
        weight = self.weight.flatten(1)[None, :, :, None] + 0 * x.mean((1, 2, 3))[:, None, None, None]
        return (self.columns(x)[:, None] * weight).sum(2)[:, :, None]


class Adding(Block):
    def forward(self, x):
        return (self.columns(x)[:, None] - self.weight.flatten(1)[None, :, :, None]).abs().sum(2)[:, :, None]


class Numpy(Block):
    def forward(self, x):
        columns = self.columns(x).numpy()
        return torch.from_numpy(self.weight.detach().flatten(1).numpy() @ columns)[:, :, None]


class Thread(Functional):
    def forward(self, x):
        out = []
        with torch.no_grad():
            thread = threading.Thread(target=lambda: out.append(F.conv2d(x, self.weight.detach(), padding=1)))
            thread.start()
            thread.join()
        return out[0]


class OutOfSight(Functional):
    def forward(self, x):
        with _disable_current_modes():
            return super().forward(x)


class InferenceMode(Functional):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x).clone()


class Fourier(Block):
    def forward(self, x):
        kernel = torch.fft.rfft2(self.weight, s=x.shape[2:])
        return torch.fft.irfft2((torch.fft.rfft2(x)[:, None] * kernel).sum(2), s=x.shape[2:])


class Unregistered(Block):
    def __init__(self, filters):
        super().__init__(filters)
        self.hidden = [nn.Conv2d(3, filters, 3, padding=1, bias=False)]

    def forward(self, x):
        return self.hidden[0](x)


class ForwardOfConv(Block):
    def __init__(self, filters):
        super().__init__(filters)
        self.conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)

    def forward(self, x):
        return self.conv.forward(x)


class SubclassedConv(nn.Conv2d):
    def __init__(self, filters):
        super().__init__(3, filters, 3, padding=1, bias=False)


class OwnArithmetic(SubclassedConv):
    def forward(self, x):
        return (self.weight.flatten(1) @ F.unfold(x, 3, padding=1))[:, :, None]


class OwnCall(SubclassedConv):
    def __call__(self, x):
        return self.forward(x)


class NameOfConv(SubclassedConv):
    pass


NameOfConv.__name__ = NameOfConv.__qualname__ = "Conv2d"


def patched(filters):
    block, work = nn.ReLU(), Functional(filters)
    block.forward = work.forward
    return block


def lying(filters):
    conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)
    conv.in_channels = 0
    return conv


def nested(filters):
    outer = nn.Flatten(0, 0)
    outer.__class__ = type("Nested", (nn.Flatten,), {"forward": lambda self, x: self.relu(x)})
    outer.relu = nn.ReLU()
    outer.relu.conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)
    outer.relu.forward = outer.relu.conv.__call__
    return outer


def hooked(filters):
    block, work = nn.Flatten(0, 0), Functional(filters)
    block.register_forward_hook(lambda module, inputs, output: work(inputs[0]))
    return block


class Erased(nn.Module):
    """Counts its convolution, and takes the count away from ptflops again."""

    def __init__(self, filters):
        super().__init__()
        self.conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)

    def forward(self, x):
        out = self.conv(x)
        for module in self.modules():
            module._forward_hooks.clear()
        return out + F.conv2d(x, self.conv.weight, padding=1)


BLOCKS = [
    Functional, Einsum, Matmul, FunctionalLinear, Scripted, ScriptedFunction, Autograd, MultiplyAdd, MultiplyAddInPlace,
    PythonNumbers, Alpha, OuterProduct, WeightsInDisguise, Adding, Numpy, Thread, OutOfSight, InferenceMode, Fourier,
    Unregistered, ForwardOfConv, SubclassedConv, OwnArithmetic, OwnCall, NameOfConv, patched, lying, nested, hooked,
    Erased,
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_planted_cheats_are_refused(net, block, size):
    stride, filters = SIZES[size]
    verdict = audit(Cheating(net, block(filters), stride), IMAGE)
    assert not verdict.ok
    assert verdict.findings
