"""Published nets of three libraries: folded, equalized, quantized in weights and inputs."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from solution.compress.quantize import Quantize
from solution.contracts import StepContext
from solution.evaluate.audit import audit
from solution.models.classifiers import Classifier

SIDES = {
    "torchvision:googlenet": 64,
    "torchvision:mobilenet_v3_small": 64,
    "pytorchcv:resnet20_cifar10": 32,
    "timm:lcnet_050": 64,
}


def settled(net, images):
    """`net` with norms that have seen `images`, so that signals neither grow nor vanish."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = None
    with torch.no_grad():
        net.train()(images)
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDES)
def test_a_published_net_keeps_its_answers(name):
    torch.manual_seed(0)
    images = torch.randn(8, 3, SIDES[name], SIDES[name])
    net = settled(Classifier(name=name).build(10), images)
    context = StepContext(example=images[:2], calibration=[(images, torch.zeros(8))], log=lambda _: None)
    plan = Quantize(activations=8, fold_norms=True, cross_layer_equalize=True, images=8).plan(net, context)
    with torch.no_grad():
        exact = net(images)
        assert torch.allclose(
            plan.prepare(copy.deepcopy(net))(images), exact, rtol=1e-3, atol=1e-3 * float(exact.std())
        )
        coarse = dataclasses.replace(plan, schemes=dict.fromkeys(plan.schemes, "int4"), ranges={})
        far, near = ((made.apply(net)(images) - exact).norm() for made in (coarse, plan))
    assert near < far
    assert plan.materialized
    assert plan.kept == {}
    assert audit(plan.apply(net), images[:1]).ok == audit(net, images[:1]).ok
