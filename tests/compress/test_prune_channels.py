"""PruneChannels: shares, budgets, limits, and what it refuses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from toy_nets import conv, toy_net

from solution.checkpoint import load
from solution.compress.channels import step as step_file
from solution.compress.channels.step import PruneChannels, cost_of, recalibrated, tensor_bytes
from solution.contracts import InputError, StepContext
from solution.evaluate.cost import macs, params
from solution.models.cifar_resnet import CifarResNet
from solution.models.shufflenet import ShuffleNet
from solution.runtime import ROOT

EXAMPLE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
GIVEN = StepContext(example=EXAMPLE)


def small_cnn(width=32):
    torch.manual_seed(0)
    layers = [conv(3, width), nn.BatchNorm2d(width), nn.ReLU(), conv(width, 2 * width), nn.BatchNorm2d(2 * width)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 7)).eval()


def test_half_of_every_layer_goes():
    cut = PruneChannels(ratio=0.5)(small_cnn(), GIVEN)
    assert (cut[0].out_channels, cut[3].out_channels, cut[8].in_features, cut[8].out_features) == (16, 32, 32, 7)


@pytest.mark.parametrize("ranking", ["uniform", "global"])
@pytest.mark.parametrize(("name", "cost"), [("macs", macs), ("params", lambda net, _: params(net))])
def test_budgets_are_met_and_never_exceeded(name, cost, ranking):
    net = small_cnn()
    limit = 0.4 * cost(net, EXAMPLE)
    for asked in ("40%", int(limit)):
        left = cost(PruneChannels(**{name: asked}, ranking=ranking)(net, GIVEN), EXAMPLE)
        assert 0.98 * limit <= left <= limit  # one channel of the narrow layer is 1.2 %


@settings(max_examples=8, deadline=None)
@given(asked=st.floats(0.05, 0.95), width=st.integers(8, 40))
def test_a_budget_is_met_within_one_percent_or_one_channel(asked, width):
    net = small_cnn(width)
    cut = PruneChannels(params=f"{100 * asked}%")(net, GIVEN)
    narrow, wide = cut[0].out_channels, cut[3].out_channels
    one_more = min(27 + 3 + 9 * wide, 9 * narrow + 3 + 7)
    limit = asked * params(net)
    assert limit - max(0.01 * limit, one_more) <= params(cut) <= limit


@pytest.mark.parametrize("ranking", ["uniform", "global", "per_cost"])
@pytest.mark.parametrize("name", ["macs", "params", "bytes"])
def test_every_ranking_meets_every_budget_within_one_percent(name, ranking):
    """Groups of three behind shuffles: the numbers that one pressure reaches lie far apart."""
    net, _ = load(ROOT / "pretrained" / "recycle9" / "before.safetensors")
    context = StepContext(example=torch.zeros(1, 3, 80, 80))
    limit = 0.7 * cost_of(name, net, context)
    cut = PruneChannels(**{name: "70%"}, ranking=ranking, verify=False)(net, context)
    assert 0.99 * limit <= cost_of(name, cut, context) <= limit


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ranking", ["uniform", "global", "per_cost"])
def test_budgets_of_a_residual_net_whose_shortcuts_pad_channels(ranking, seed):
    torch.manual_seed(seed)
    net = CifarResNet(depth=20).build(10).eval()
    left = macs(PruneChannels(macs="70%", ranking=ranking, verify=False)(net, GIVEN), EXAMPLE)
    assert 0.99 * 0.7 * macs(net, EXAMPLE) <= left <= 0.7 * macs(net, EXAMPLE)


def test_a_latency_budget_is_met_by_the_ratio_to_the_full_net(monkeypatch):
    """On a machine whose speed drifts, but on which time goes by MACs."""
    net, drift = small_cnn(), iter(range(1, 1000))
    monkeypatch.setattr(step_file, "median_latency_ms", lambda *_: 7.0 * next(drift))
    monkeypatch.setattr(step_file, "latency_ratio", lambda cut, full, *_: macs(cut, EXAMPLE) / macs(full, EXAMPLE))
    left = macs(PruneChannels(latency="50%")(net, GIVEN), EXAMPLE)
    assert 0.45 * macs(net, EXAMPLE) <= left <= 0.5 * macs(net, EXAMPLE)


def test_the_multiple_that_runs_fastest_is_taken(monkeypatch):
    def times(nets, example, device):
        fast = [(net[0].out_channels, net[3].out_channels) == (16, 32) for net in nets[1:]]
        return np.array([[10.0] + [5.0 if one else 7.0 for one in fast]] * 3)

    monkeypatch.setattr(step_file, "times_ms", times)
    lines = []
    context = StepContext(example=EXAMPLE, log=lines.append)
    cut = PruneChannels(ratio=0.4, round_to="auto")(small_cnn(), context)
    assert (cut[0].out_channels, cut[3].out_channels) == (16, 32)
    assert lines == ['round_to="auto": channel numbers are multiples of 16']


def test_a_budget_of_bytes_on_a_shufflenet():
    net = ShuffleNet(groups=3, units=(2, 1, 1)).build(4)
    left = tensor_bytes(PruneChannels(bytes="50%")(net, GIVEN))
    assert 0.495 * tensor_bytes(net) <= left <= 0.5 * tensor_bytes(net)


def test_channel_numbers_are_rounded():
    cut = PruneChannels(ratio=0.4, round_to=8)(small_cnn(), GIVEN)
    assert cut[0].out_channels % 8 == cut[3].out_channels % 8 == 0


def test_limits_and_protected_layers_hold():
    cut = PruneChannels(ratio=0.5, limits={"0": 0.25}, protect=("3",))(small_cnn(), GIVEN)
    assert (cut[0].out_channels, cut[3].out_channels) == (24, 64)


def test_global_ranking_takes_the_weak_layer():
    net = small_cnn()
    with torch.no_grad():
        net[0].weight[:16] *= 1e-3
        net[3].weight[:, :16] *= 1e-3
    cut = PruneChannels(ratio=1 / 6, ranking="global")(net, GIVEN)
    assert (cut[0].out_channels, cut[3].out_channels) == (16, 64)


@pytest.mark.parametrize(("budget", "layer"), [("macs", 0), ("params", 1)])
def test_ranking_by_cost_takes_what_the_budget_counts(budget, layer):
    """Equal weights: the first layer sees four times the positions, the second has more weights."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 4, 3, 4, 1), nn.Conv2d(4, 32, 3, 8, 1))
    for convolution in net:
        nn.init.ones_(convolution.weight)
    cut = PruneChannels(**{budget: "90%"}, ranking="per_cost")(net, GIVEN)
    left = (cut[0].out_channels / 8, cut[1].out_channels / 4)
    assert left[layer] < 1 == left[1 - layer]
    cost = macs(cut, EXAMPLE) / macs(net, EXAMPLE) if budget == "macs" else params(cut) / params(net)
    assert 0.9 - 1 / (8, 4)[layer] <= cost <= 0.9


def test_the_important_channels_stay():
    net = small_cnn()
    with torch.no_grad():
        net[0].weight[::2] *= 100
    cut = PruneChannels(ratio=0.5)(net, GIVEN)
    assert torch.equal(cut[0].weight, net[0].weight[::2])


def test_only_the_outputs_that_matter_are_protected():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.left, self.right = conv(3, 16), conv(16, 8), conv(16, 8)

        def forward(self, x):
            x = F.relu(self.body(x))
            return self.left(x), self.right(x)

    left, right = PruneChannels(ratio=0.5, outputs=(0,))(TwoHeads(), GIVEN)(EXAMPLE)
    assert (left.shape[1], right.shape[1]) == (8, 4)


def test_batch_norm_is_measured_again_on_calibration_batches():
    batches = [(EXAMPLE + shift, torch.zeros(2)) for shift in (0.0, 1.0)]
    net = small_cnn()
    cut = PruneChannels(ratio=0.5)(net, StepContext(example=EXAMPLE, calibration=batches))
    means = torch.stack([cut[0](images).mean((0, 2, 3)) for images, _ in batches])
    torch.testing.assert_close(cut[1].running_mean, means.mean(0), rtol=1e-4, atol=1e-5)
    assert cut[1].momentum == net[1].momentum
    assert not cut.training


def test_recalibration_keeps_frozen_modes():
    net = small_cnn().train()
    net[1].eval()
    recalibrated(net, [(EXAMPLE, None)])
    assert (net.training, net[1].training, net[4].training) == (True, False, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratio": 0.0}, "between 0 and 1, got 0.0"),
        ({"ratio": 1.0}, "between 0 and 1, got 1.0"),
        ({}, "give ratio or one of"),
        ({"ratio": 0.5, "macs": "50%"}, "got ratio, macs"),
        ({"macs": -1}, "macs must be a share .* got -1"),
        ({"macs": 0.5}, r'could mean two things: write macs="50%"'),
        ({"latency": 2}, r'latency=2 has no unit: write latency="0.5 ms"'),
        ({"ratio": 0.5, "ranking": "best"}, "ranking must be one of uniform, global, per_cost, got 'best'"),
        ({"ratio": 0.5, "importance": "luck"}, "importance must be one of"),
        ({"ratio": 0.5, "round_to": 0}, 'round_to must be at least 1, or "auto", got 0'),
        ({"ratio": 0.5, "limits": {"stem": 2}}, "must lie between 0 and 1, got 2"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        PruneChannels(**wrong)


def test_an_unreachable_budget_names_the_least_and_what_protects_the_rest():
    with pytest.raises(InputError, match=r"cannot be reached: the least is [\d,]+.*8 \(it is an output\)"):
        PruneChannels(macs="1.5")(small_cnn(), GIVEN)


def test_a_budget_above_the_cost_is_refused():
    with pytest.raises(InputError, match="must come below"):
        PruneChannels(params="1G")(small_cnn(), GIVEN)


def test_nothing_to_cut_is_refused_with_the_reasons():
    with pytest.raises(InputError, match=r"nothing would be cut .*it is protected"):
        PruneChannels(ratio=0.5, protect=("*",))(small_cnn(), GIVEN)
    with pytest.raises(InputError, match=r"nothing would be cut .*it is an output"):
        PruneChannels(ratio=0.5)(conv(3, 8), GIVEN)


def test_an_example_of_the_wrong_shape_is_refused():
    with pytest.raises(InputError, match=r"does not run on an example of shape \(1, 4, 32, 32\)"):
        PruneChannels(ratio=0.5)(small_cnn(), StepContext(example=torch.randn(1, 4, 32, 32)))


def test_branching_on_values_is_refused_with_the_line():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = conv(3, 8)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(
        InputError, match=r"branches on tensor values \(.*test_prune_channels.py:\d+: return self.layer"
    ):
        PruneChannels(ratio=0.5)(Moody(), GIVEN)


def test_nan_weights_are_refused():
    net = toy_net("residual")
    with torch.no_grad():
        net.two.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"two\.weight holds NaN"):
        PruneChannels(ratio=0.5)(net, GIVEN)
