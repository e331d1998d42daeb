"""Forwards that insist on sizes of their own: what resists stays, the rest is cut, however deep the net."""

import pytest
import torch
from torch import nn

from solution.compress.channels.step import PruneChannels
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.equality import compare, randomize
from solution.contracts import StepContext

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Stubborn(nn.Module):
    """A residual block of 8 channels whose forward splits by numbers that are written out."""

    def __init__(self, channels):
        super().__init__()
        self.into = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        one, other = self.into(x).split((2, 6), 1)
        return x + self.out(torch.cat((other.relu(), one), 1))


def deep_net(blocks):
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), *[Stubborn(8) for _ in range(blocks)], nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )


@pytest.mark.parametrize("blocks", [1, 40])
def test_what_resists_stays_and_the_rest_is_cut(blocks):
    net = randomize(deep_net(blocks).eval())
    plan = PruneChannels(ratio=0.5).plan(net, StepContext(example=EXAMPLE))
    cut = plan.apply(net)
    assert cut[-3].out_channels == 8
    assert all(block.into.out_channels == 8 for block in cut[1 : 1 + blocks])
    assert "does not follow a cut" in plan.kept["1.into"]
    found = compare(net, plan, analyze(TraceRequest(model=net, example=EXAMPLE)), EXAMPLE)
    assert found.error < 1e-10 < found.moved


NETS_OF_TIMM = [
    ("cs3darknet_focus_s", {}, 0.3),
    ("mambaout_femto", {}, 0.3),
    ("levit_128s", {"img_size": 64}, 0.35),
    ("levit_conv_128s", {"img_size": 64}, 0.35),
    ("regnetz_c16_evos", {}, 0.7),
]


@pytest.mark.parametrize(("name", "settings", "most"), NETS_OF_TIMM)
def test_sizes_that_timm_keeps_in_attributes_follow_the_cut(name, settings, most):
    import timm

    net = randomize(timm.create_model(name, pretrained=False, **settings).eval())
    example = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plan = PruneChannels(ratio=0.5).plan(net, StepContext(example=example))
    before, after = plan.saves["macs"]
    assert after < most * before
    found = compare(net, plan, analyze(TraceRequest(model=net, example=example)), example)
    assert found.equal
