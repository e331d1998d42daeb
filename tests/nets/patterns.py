"""Functions between two convolutions: more ways to treat parts of the channels unlike, or to use their number."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


def unequal_parts(x: Tensor) -> Tensor:
    """Three parts at written places."""
    a, b, c = x.tensor_split((8, 20), 1)
    return torch.cat([a.relu(), b.sigmoid(), c], 1)


def share_and_rest(x: Tensor) -> Tensor:
    """A quarter, and what is left."""
    a, b = x.split([x.size(1) // 4, x.size(1) - x.size(1) // 4], 1)
    return torch.cat([a.relu(), b], 1)


def halves_crosswise(x: Tensor) -> Tensor:
    """Two halves change places."""
    a, b = torch.hsplit(x, 2)
    return torch.cat([b.tanh(), a], 1)


def every_third(x: Tensor) -> Tensor:
    """Strided slices change in place."""
    x = x.clone()
    x[:, 1::3] *= 0.3
    x[:, 2::3] = x[:, 2::3].relu()
    return x


def narrowed(x: Tensor) -> Tensor:
    """Narrowed views change in place."""
    x = x.clone()
    x.narrow(1, 8, 8).mul_(2)
    x.narrow(1, 16, 8).relu_()
    return x


def swapped_in_place(x: Tensor) -> Tensor:
    """Each half is written over the other."""
    x, half = x.clone(), x.shape[1] // 2
    first = x[:, :half].clone()
    x[:, :half] = x[:, half:].relu()
    x[:, half:] = first
    return x


def masked_share(x: Tensor) -> Tensor:
    """A mask of ones for a quarter of the channels."""
    mask = torch.zeros_like(x)
    mask[:, : x.shape[1] // 4] = 1
    return x * mask + x.relu() * (1 - mask)


def masked_border(x: Tensor) -> Tensor:
    """A mask of ones for places, which says nothing about channels."""
    mask = torch.zeros_like(x)
    mask[..., 2:-2, 2:-2] = 1
    return x * mask + x.relu() * (1 - mask)


def joined_mask(x: Tensor) -> Tensor:
    """A mask of ones and zeros, joined."""
    half = x.shape[1] // 2
    shape = (1, half, 1, 1), (1, x.shape[1] - half, 1, 1)
    mask = torch.cat([x.new_ones(shape[0]), x.new_zeros(shape[1])], 1)
    return x * mask + x.tanh() * (1 - mask)


def numbered_mask(x: Tensor) -> Tensor:
    """A choice by the number of a channel."""
    return torch.where((torch.arange(x.shape[1]) < x.shape[1] // 2).view(1, -1, 1, 1), x.relu(), x)


def channels_last_part(x: Tensor) -> Tensor:
    """A written number of channels, which lie last."""
    y = x.movedim(1, -1)
    return torch.cat([y[..., :12].relu(), y[..., 12:]], -1).movedim(-1, 1)


def unfolded_runs(x: Tensor) -> Tensor:
    """Runs of eight channels by unfold, the first of them treated otherwise."""
    y = x.unfold(1, 8, 8).movedim(-1, 2)
    return torch.cat([y[:, 0].relu(), y[:, 1:].flatten(1, 2)], 1)


def each_from_the_last(x: Tensor) -> Tensor:
    """Each of four parts has the one before added."""
    done: list[Tensor] = []
    for part in x.chunk(4, 1):
        done.append(F.relu(part + done[-1]) if done else part)
    return torch.cat(done, 1)


def depth_to_space(x: Tensor) -> Tensor:
    """Blocks of channels become places, in TensorFlow's order."""
    b, c, h, w = x.shape
    x = x.view(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // 4, 2 * h, 2 * w)
    return torch.cat([x] * 4, 1)


def split_attention(x: Tensor) -> Tensor:
    """A softmax over two runs of channels."""
    b, c, h, w = x.shape
    return x.reshape(b, 2, c // 2, h, w).softmax(1).transpose(1, 2).reshape(b, c, h, w)


def kernel_of_width(x: Tensor) -> Tensor:
    """A window that grows with the logarithm of the width."""
    size = int(abs((math.log2(x.size(1)) + 1) / 2))
    size += 1 - size % 2
    return x * F.avg_pool2d(x, size, 1, size // 2).sigmoid()


def size_of_width(x: Tensor) -> Tensor:
    """As many rows as an eighth of the channels."""
    return F.interpolate(x, size=x.shape[1] // 8)


def dropped_by_width(x: Tensor) -> Tensor:
    """A share that drops out, from the width."""
    return F.dropout(x, 1 / x.size(1), training=False)


def multiple_of_eight(x: Tensor) -> Tensor:
    """A branch on whether the width is a multiple."""
    return x.relu() if x.shape[1] % 8 == 0 else x.sigmoid()


def one_by_one(x: Tensor) -> Tensor:
    """A loop over the channels, each with a factor of its own."""
    total = torch.zeros_like(x[:, :1])
    for number in range(x.shape[1]):
        total = total + x[:, number : number + 1] * (number + 1)
    return x * total.sigmoid()


def mean_by_hand(x: Tensor) -> Tensor:
    """The sum over channels, divided by their number."""
    return x - x.sum(1, keepdim=True) / x.shape[1]


def waves(x: Tensor) -> Tensor:
    """Sines of a frequency for each channel, made in the forward."""
    number = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
    return x + torch.sin(torch.arange(x.shape[3], dtype=x.dtype) / 10 ** (number / x.shape[1]))[None, :, None]


def labels_beside(x: Tensor) -> Tensor:
    """Four more channels that say of which kind a picture is."""
    kinds = F.one_hot((x.mean((1, 2, 3)) > 0).long(), 4).to(x)
    return torch.cat([x[:, 4:], kinds[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


def largest_channel(x: Tensor) -> Tensor:
    """Only the largest channel of each place passes."""
    return x * F.one_hot(x.argmax(1), x.size(1)).permute(0, 3, 1, 2).to(x)


def coordinates(x: Tensor) -> Tensor:
    """Two more channels with coordinates."""
    rows, columns = (torch.linspace(-1, 1, size, dtype=x.dtype) for size in x.shape[2:])
    grid = torch.meshgrid(rows, columns, indexing="ij")
    return torch.cat([x[:, 2:], *(one.expand(len(x), 1, -1, -1) for one in grid)], 1)


def scaled_by_root(x: Tensor) -> Tensor:
    """Divided by the root of the width, between layers that can make up for it."""
    return x * x.size(1) ** -0.5


class Straight(torch.autograd.Function):
    """The sign, with the gradient of nothing."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def signs(x: Tensor) -> Tensor:
    """A function with a gradient of its own."""
    return Straight.apply(x)


PLAIN = tuple(
    one for one in list(globals().values()) if inspect.isfunction(one) and one.__module__ == __name__ and one != nets
)
BY_NAME: dict[str, Callable[[Tensor], Tensor]] = {one.__name__: one for one in PLAIN}


class Between(nn.Module):
    """Two convolutions with a function between them, and a head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 24, 3, padding=1)
        self.c, self.head = nn.Conv2d(24, 24, 3, padding=1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(self.function(self.a(x))))
        return self.head(F.relu(self.c(x)).mean((2, 3)))


class Build:
    """Builds the net of one function; it can be sent to another process."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self) -> nn.Module:
        return Between(BY_NAME[self.__name__])


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets("patterns", *((Build(name), SHAPE) for name in BY_NAME if name != "scaled_by_root"))
NETS += nets("patterns", (Build("scaled_by_root"), SHAPE, "double"))
