"""Kernels computed of several tensors, and products whose operands are written in an unusual order."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import solution as fw
from solution.contracts import plans_of


class Joined(nn.Module):
    """A kernel of two parts, joined along `axis`."""

    def __init__(self, axis):
        super().__init__()
        self.axis, self.stem, self.head = axis, nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
        shape = (8, 16, 3, 3) if axis == 0 else (16, 8, 3, 3)
        self.parts = nn.ParameterList([torch.randn(shape) * 0.1 for _ in range(2)])

    def forward(self, x):
        return self.head(F.conv2d(self.stem(x).relu(), torch.cat(list(self.parts), self.axis), padding=1).relu())


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_of_a_kernel_lose_channels_each(axis):
    net = Joined(axis)
    small = fw.PruneChannels(ratio=0.5)(net, torch.randn(2, 3, 8, 8))
    assert small.stem.out_channels == 8
    joined = torch.cat([part.detach() for part in small.parts], axis)
    assert joined.shape == (8, 8, 3, 3)
    assert plans_of(small)[-1].verified < 1e-10


class FromTheLeft(nn.Module):
    """A stored graph and a weight, each the left factor of a product."""

    def __init__(self):
        super().__init__()
        self.register_buffer("graph", torch.rand(10, 10) / 10)
        self.stem, self.mix = nn.Linear(6, 16), nn.Parameter(torch.randn(12, 16) * 0.2)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        nodes = (self.graph @ self.stem(x)).relu()
        return self.head((self.mix @ nodes.transpose(1, 2)).relu().mean(2))


def test_left_factors_mix_positions_or_read_channels():
    net = FromTheLeft()
    small = fw.PruneChannels(ratio=0.5)(net, torch.randn(2, 10, 6))
    assert (small.stem.out_features, tuple(small.mix.shape)) == (8, (6, 8))
    assert small.graph.shape == (10, 10)


def test_a_causal_mask_made_in_the_forward_is_no_branch_on_values():
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.head = nn.Linear(32, 5)

        def forward(self, x):
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.head(self.encoder(x, mask=mask))

    small = fw.PruneChannels(ratio=0.5, verify=False)(Causal(), torch.randn(2, 6, 32))
    assert small.encoder.layers[0].linear1.out_features == 32


class Bases(nn.Module):
    """Powers of every channel, read by a matrix in three dimensions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, 12)
        self.register_buffer("powers", torch.arange(4.0))
        self.read = nn.Parameter(torch.randn(12, 9, 4) * 0.2)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        made = torch.cos(self.powers * self.stem(x).tanh()[..., None])
        return self.head(torch.einsum("bid,iod->bo", made, self.read))


def test_channels_stretched_over_stored_powers_are_cut_and_the_powers_stay():
    small = fw.PruneChannels(ratio=0.5)(Bases(), torch.randn(3, 5))
    assert (small.stem.out_features, tuple(small.read.shape)) == (6, (6, 4, 4))
    assert len(small.powers) == 4


def test_nothing_is_cut_from_what_a_gate_mixes_kernels_of():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.gate, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 4), nn.Conv2d(16, 3, 1)
            self.kernels = nn.Parameter(torch.randn(4, 16, 16, 3, 3) * 0.1)

        def forward(self, x):
            x = self.stem(x).relu()
            batch, channels, height, width = x.shape
            shares = self.gate(x.mean((2, 3))).softmax(1)
            kernel = torch.mm(shares, self.kernels.view(4, -1)).view(batch * channels, channels, 3, 3)
            made = F.conv2d(x.view(1, -1, height, width), kernel, padding=1, groups=batch)
            return self.head(made.view(batch, channels, height, width).relu())

    small = fw.PruneChannels(ratio=0.5)(Mixed(), torch.randn(2, 3, 8, 8))
    assert small.kernels.shape == (4, 8, 8, 3, 3)
    assert small.gate.out_features == 4
