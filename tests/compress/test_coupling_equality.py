"""Masked equals sliced: a cut net returns what the full one does when nobody reads the cut channels."""

import pytest
import torch
from toy_nets import TOYS, toy_net

from solution.compress.coupling.analysis import Subject, analyse
from solution.compress.coupling.equality import compare, randomise
from solution.compress.prune_channels import PruneChannels
from solution.contracts import Given
from solution.models.shufflenet import ShuffleNet


def difference(net, size, **settings):
    """The plan of `PruneChannels(**settings)` for a randomised `net`, and its `Difference`."""
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    net = randomise(net.eval())
    plan = PruneChannels(**settings).plan(net, Given(example=example))
    return plan, compare(net, plan, analyse(Subject(model=net, example=example)), example)


def assert_equal_and_moved(found, error=1e-10):
    assert found.error < error
    assert found.moved > 1e-3


@pytest.mark.parametrize("name", TOYS)
def test_toys(name):
    for ratio, importance in ((0.25, "l2"), (0.75, "random")):
        plan, found = difference(toy_net(name), 8, ratio=ratio, importance=importance)
        assert_equal_and_moved(found)
        assert plan.saves["macs"][1] < plan.saves["macs"][0]


OPEN = pytest.mark.xfail(reason="not all sizes of 4 and 8 groups are found yet: the wiring mixes, or too little goes")


@pytest.mark.parametrize("groups", [1, 2, 3, pytest.param(4, marks=OPEN), pytest.param(8, marks=OPEN)])
def test_our_shufflenet(groups):
    net = ShuffleNet(groups=groups, units=(2, 2, 2)).build(7)
    for ratio in (0.3, 0.6):
        plan, found = difference(net, 32, ratio=ratio, importance="random")
        assert_equal_and_moved(found)
        assert plan.saves["macs"][1] < (1 - ratio) * plan.saves["macs"][0]


FAST = {"resnet18": 32, "mobilenet_v2": 32, "shufflenet_v2_x0_5": 32, "cv:shufflenet_g3_wd4": 224}
PLAIN = """
resnet34 resnet50 vgg11_bn densenet121 mobilenet_v3_small mobilenet_v3_large efficientnet_b0 mnasnet1_0 convnext_tiny
regnet_y_400mf regnet_x_400mf resnext50_32x4d squeezenet1_1 alexnet googlenet swin_t
"""
SLOW = {**dict.fromkeys(PLAIN.split(), 64), "inception_v3": 128, "vit_b_32": 224}
PYTORCHCV = """
shufflenet_g1_w1 shufflenet_g2_w1 shufflenet_g3_w1 shufflenet_g4_w1 shufflenet_g8_w1 shufflenet_g1_w3d4
shufflenet_g3_w3d4 shufflenet_g1_wd2 shufflenet_g3_wd2 shufflenet_g1_wd4 shufflenet_g3_wd4 shufflenetv2_wd2
shufflenetv2_w1 shufflenetv2_w3d2 shufflenetv2_w2 shufflenetv2b_wd2 shufflenetv2b_w1 shufflenetv2b_w3d2 shufflenetv2b_w2
"""
TORCHVISION = "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0"
SHUFFLENETS = [f"cv:{name}" for name in PYTORCHCV.split()] + TORCHVISION.split(" ")


def named_net(name):
    torch.manual_seed(0)
    if name.startswith("cv:"):
        from pytorchcv.model_provider import get_model

        return get_model(name.removeprefix("cv:"))
    import torchvision

    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **settings)


@pytest.mark.parametrize("name", FAST)
def test_families(name):
    assert_equal_and_moved(difference(named_net(name), FAST[name], ratio=0.5, importance="random")[1])


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", SLOW)
def test_more_families(name, ratio):
    assert_equal_and_moved(difference(named_net(name), SLOW[name], ratio=ratio, importance="random")[1])


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.2, 0.3, 0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize("name", SHUFFLENETS)
def test_every_shufflenet(name, ratio):
    plan, found = difference(named_net(name), 224, ratio=ratio, importance="random")
    assert_equal_and_moved(found)
    before, after = plan.saves["macs"]
    assert after <= (1 - ratio / 2) * before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_still_run_in_training(name):
    net = named_net(name)
    size = 2 * SLOW[name]
    smaller = PruneChannels(ratio=0.5)(net, Given(example=torch.randn(1, 3, size, size)))
    main, *auxiliary = smaller.train()(torch.randn(2, 3, size, size))
    assert main.shape == (2, 1000)
    assert all(head.shape == (2, 1000) for head in auxiliary if head is not None)
