"""Small nets, each with one way of coupling channels."""

import torch
import torch.nn.functional as F
from torch import nn


class Toy(nn.Module):
    """A convolution, the forward given, and a classifier."""

    def __init__(self, forward, classifier=16, **layers):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = forward
        self.head = nn.Linear(classifier, 5)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        x = self.body(self, self.stem(x))
        return self.head(x.mean((2, 3)) if x.ndim == 4 else x)


def excited(net, x):
    return x * torch.sigmoid(net.up(F.relu(net.down(x.mean((2, 3), keepdim=True)))))


def shuffled(net, x):
    x = net.first(x)
    b, c, h, w = x.shape
    x = x.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)
    return net.second(x)


def chunked(net, x):
    left, right = net.wide(x).chunk(2, 1)
    return torch.cat([left, net.narrow(right)], 1)


def tokens(net, x):
    return net.mlp(net.norm(x.flatten(2).transpose(1, 2))).mean(1)


def attention(net, x):
    tokens = x.flatten(2).transpose(1, 2)
    b, n, _ = tokens.shape
    q, k, v = net.qkv(tokens).reshape(b, n, 3, -1, 4).permute(2, 0, 3, 1, 4)
    return net.projection(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)).mean(1)


def gate(net, x):
    return x * torch.sigmoid(net.one(x))


def twice(net, x):
    return net.same(F.relu(net.same(x)))


def conv(inputs, outputs, **settings):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **settings)


TOYS = {
    "plain, sigmoid between": lambda: Toy(lambda net, x: net.two(torch.sigmoid(x)), two=conv(16, 16)),
    "residual": lambda: Toy(lambda net, x: x + net.two(F.relu(x)), two=conv(16, 16)),
    "batch norm": lambda: Toy(lambda net, x: F.relu(net.norm(x)), norm=nn.BatchNorm2d(16)),
    "group norm": lambda: Toy(lambda net, x: F.relu(net.norm(x)), norm=nn.GroupNorm(4, 16)),
    "depthwise, two filters each": lambda: Toy(
        lambda net, x: net.two(net.deep(x)), deep=conv(16, 32, groups=16), two=conv(32, 16)
    ),
    "grouped": lambda: Toy(lambda net, x: net.two(net.group(x)), group=conv(16, 24, groups=4), two=conv(24, 16)),
    "channel shuffle": lambda: Toy(shuffled, first=conv(16, 24, groups=4), second=conv(24, 16, groups=4)),
    "chunk": lambda: Toy(chunked, wide=conv(16, 16), narrow=conv(8, 8)),
    "squeeze and excite": lambda: Toy(excited, down=nn.Conv2d(16, 4, 1), up=nn.Conv2d(4, 16, 1)),
    "spatial gate": lambda: Toy(gate, one=conv(16, 1)),
    "gated linear unit": lambda: Toy(lambda net, x: F.glu(net.wide(x), 1), wide=conv(16, 32)),
    "pixel shuffle": lambda: Toy(lambda net, x: net.two(F.pixel_shuffle(x, 2)), two=conv(4, 16)),
    "pixel unshuffle": lambda: Toy(lambda net, x: net.two(F.pixel_unshuffle(x, 2)), two=conv(64, 16)),
    "flatten": lambda: Toy(lambda net, x: F.adaptive_avg_pool2d(x, 2).flatten(1), classifier=64),
    "flatten, channels last": lambda: Toy(
        lambda net, x: F.adaptive_avg_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1), classifier=64
    ),
    "one slope per channel": lambda: Toy(lambda net, x: net.slope(x), slope=nn.PReLU(16, init=0.3)),
    "transposed": lambda: Toy(lambda net, x: net.two(net.up(x)), up=nn.ConvTranspose2d(16, 12, 2, 2), two=conv(12, 16)),
    "transposed, grouped": lambda: Toy(
        lambda net, x: net.two(net.up(x)), up=nn.ConvTranspose2d(16, 12, 2, 2, groups=2), two=conv(12, 16)
    ),
    "one layer called twice": lambda: Toy(twice, same=conv(16, 16)),
    "tokens": lambda: Toy(
        tokens, norm=nn.LayerNorm(16), mlp=nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    ),
    "attention by heads": lambda: Toy(attention, qkv=nn.Linear(16, 48), projection=nn.Linear(16, 16)),
}


def toy_net(name):
    """The net called so, randomly initialized with seed 0, in eval mode."""
    torch.manual_seed(0)
    return TOYS[name]().eval()
