"""Masked equals sliced: a cut net returns what the full one does when nobody reads the cut channels."""

import dataclasses

import pytest
import torch
from toy_nets import TOYS, toy_net

from solution.compress.channels.step import PruneChannels
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.equality import compare, randomize
from solution.contracts import StepContext
from solution.models.shufflenet import ShuffleNet


def difference(net, size, **settings):
    """The plan of `PruneChannels(**settings)` for a randomized `net`, and its `Difference`."""
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    net = randomize(net.eval())
    plan = PruneChannels(**settings).plan(net, StepContext(example=example))
    return plan, compare(net, plan, analyze(TraceRequest(model=net, example=example)), example)


def assert_equal_and_moved(found, error=1e-10):
    assert found.error < error
    assert found.moved > 1e-3


@pytest.mark.parametrize("name", TOYS)
def test_toys(name):
    for ratio, importance in ((0.25, "l2"), (0.75, "random")):
        plan, found = difference(toy_net(name), 8, ratio=ratio, importance=importance)
        assert_equal_and_moved(found)
        assert plan.saves["macs"][1] < plan.saves["macs"][0]


@pytest.mark.parametrize(("rounds", "limit"), [(False, 1e-10), (True, 1e-5)])
def test_a_forward_that_rounds_is_judged_by_what_it_rounds_to(rounds, limit):
    class Rounding(torch.nn.Module):
        def forward(self, x):
            return x.float().to(x.dtype) if rounds else x

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), Rounding(), torch.nn.Conv2d(8, 4, 3))
    _, found = difference(net, 8, ratio=0.5)
    assert found.limit == limit
    assert found.equal
    assert not dataclasses.replace(found, error=2 * limit).equal
    assert not dataclasses.replace(found, moved=0.0).equal


def assert_passes(net, size, ratio):
    """Equal, not by accident, and MACs fell by at least half of what was asked."""
    plan, found = difference(net, size, ratio=ratio, importance="random")
    assert_equal_and_moved(found)
    before, after = plan.saves["macs"]
    assert after <= (1 - ratio / 2) * before


RATIOS = (0.2, 0.3, 0.5, 0.6, 0.7, 0.8)


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
def test_our_shufflenet(groups):
    assert_passes(ShuffleNet(groups=groups, units=(2, 2, 1), width=1.0).build(7), 32, 0.3)
    assert_passes(ShuffleNet(groups=groups, units=(2, 2, 1), width=0.25).build(7), 32, 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
def test_our_shufflenet_of_full_depth(groups, width, ratio):
    assert_passes(ShuffleNet(groups=groups, width=width).build(7), 64, ratio)


FAST = {"resnet18": 32, "mobilenet_v2": 32, "shufflenet_v2_x0_5": 32}
PLAIN = """
resnet34 resnet50 vgg16_bn densenet121 mobilenet_v3_small mobilenet_v3_large efficientnet_b0 mnasnet1_0 convnext_tiny
regnet_y_400mf regnet_x_400mf resnext50_32x4d squeezenet1_1 alexnet googlenet googlenet_without_heads swin_t vit_b_16
"""
SLOW = {**dict.fromkeys(PLAIN.split(), 64), "inception_v3": 96}
SETTINGS = {
    "googlenet": {"init_weights": False},
    "googlenet_without_heads": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False},
    "vit_b_16": {"image_size": 64},
}
PYTORCHCV = """
shufflenet_g1_w1 shufflenet_g2_w1 shufflenet_g3_w1 shufflenet_g4_w1 shufflenet_g8_w1 shufflenet_g1_w3d4
shufflenet_g3_w3d4 shufflenet_g1_wd2 shufflenet_g3_wd2 shufflenet_g1_wd4 shufflenet_g3_wd4 shufflenetv2_wd2
shufflenetv2_w1 shufflenetv2_w3d2 shufflenetv2_w2 shufflenetv2b_wd2 shufflenetv2b_w1 shufflenetv2b_w3d2 shufflenetv2b_w2
"""
TORCHVISION = "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0"
SHUFFLENETS = [f"cv:{name}" for name in PYTORCHCV.split()] + TORCHVISION.split()


def named_net(name):
    torch.manual_seed(0)
    if name.startswith("cv:"):
        from pytorchcv.model_provider import get_model

        return get_model(name.removeprefix("cv:"))
    import torchvision

    model = name.removesuffix("_without_heads")
    return torchvision.models.get_model(model, weights=None, **SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", FAST)
def test_families(name):
    assert_passes(named_net(name), FAST[name], 0.5)


def test_parts_of_unequal_length_that_are_shuffled_fit():
    assert_passes(named_net("cv:shufflenetv2b_w1"), 224, 0.6)


@pytest.mark.parametrize("name", FAST)
def test_families_in_single_precision(name):
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    net = randomize(named_net(name).eval())
    plan = PruneChannels(ratio=0.5).plan(net, StepContext(example=example))
    found = compare(net, plan, analyze(TraceRequest(model=net, example=example)), example, torch.float32)
    assert_equal_and_moved(found, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", SLOW)
def test_more_families(name, ratio):
    assert_passes(named_net(name), SLOW[name], ratio)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", SHUFFLENETS)
def test_every_shufflenet(name, ratio):
    assert_passes(named_net(name), 224 if name.startswith("cv:") else 64, ratio)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("googlenet", 128), ("inception_v3", 299)])
def test_auxiliary_heads_still_run_in_training(name, size):
    net = named_net(name)
    smaller = PruneChannels(ratio=0.5)(net, StepContext(example=torch.randn(1, 3, size, size)))
    main, *auxiliary = smaller.train()(torch.randn(2, 3, size, size))
    assert main.shape == (2, 1000)
    assert all(head.shape == (2, 1000) for head in auxiliary if head is not None)
