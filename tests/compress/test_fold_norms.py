"""Folded norms: the same answers for less, on nets of any library."""

import pytest
import timm
import torch
from torch import nn

from solution import Cluster, FoldNorms, PruneWeights, Quantize
from solution.contracts import InputError, StepContext
from solution.evaluate.cost import macs, params
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet


def seasoned(net):
    """With norms that have seen something."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (ShuffleNet(units=(2, 5, 2)), 48),
        (Classifier(name="torchvision:shufflenet_v2_x0_5"), 64),
        (Classifier(name="timm:lcnet_035"), 64),
        (Classifier(name="timm:tf_efficientnet_lite0"), 64),  # pads by the size of its input
    ],
)
def test_answers_stay_and_costs_fall(settings, size):
    net, x = seasoned(settings.build(num_classes=9)), torch.rand(2, 3, size, size)
    context = StepContext(example=x)
    plan = FoldNorms().plan(net, context)
    folded = plan.apply(net).eval()
    torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-4)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert plan.saves == {"macs": (macs(net, x), macs(folded, x)), "params": (params(net), params(folded))}
    assert params(folded) < params(net)


def test_the_after_of_the_competition_at_80_px():
    net, x = ShuffleNet(units=(2, 5, 2)).build(num_classes=9), torch.rand(1, 3, 80, 80)
    assert FoldNorms().plan(net, StepContext(example=x)).saves == {
        "macs": (1_083_210, 1_022_100),
        "params": (34_422, 32_802),
    }


def test_what_shares_values_keeps_its_norm():
    net, context = (
        seasoned(ShuffleNet(units=(2, 1), width=0.2).build(num_classes=3)),
        StepContext(example=torch.rand(2, 3, 32, 32)),
    )
    shared = Cluster(bits=2, layers=("*.stage1.unit1.expand_conv3",))(net, context).eval()
    plan = FoldNorms().plan(shared, context)
    kept = "features.stage1.unit1.expand_conv3"
    assert plan.left == {"features.stage1.unit1.expand_bn3": f"{kept} is clustered or quantized"}
    assert "expand_bn3: left as it is, features.stage1.unit1.expand_conv3 is clustered" in str(plan)
    folded = plan.apply(shared).eval()
    assert torch.equal(folded.get_submodule(kept).weight, shared.get_submodule(kept).weight)
    torch.testing.assert_close(folded(context.example), shared(context.example), rtol=1e-4, atol=1e-4)
    with pytest.raises(
        InputError, match=r"nothing to fold: features\.init_block\.conv is clustered or quantized; leave"
    ):
        FoldNorms()(Quantize(scheme="int8")(net, context), context)


def test_zeros_of_a_sparse_net_stay_zeros():
    net, context = (
        seasoned(ShuffleNet(units=(2, 1), width=0.2).build(num_classes=3)),
        StepContext(example=torch.rand(2, 3, 32, 32)),
    )
    sparse = PruneWeights(sparsity=0.6)(net, context).eval()
    folded = FoldNorms()(sparse, context).eval()
    torch.testing.assert_close(folded(context.example), sparse(context.example), rtol=1e-4, atol=1e-4)
    for name in ("features.init_block.conv", "features.stage2.unit1.expand_conv3"):
        assert torch.equal(folded.get_submodule(name).weight == 0, sparse.get_submodule(name).weight == 0)


def test_a_net_whose_norms_come_first_is_refused():
    norm_first = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1))
    with pytest.raises(InputError, match="nothing to fold: no batch norm is the only one to see"):
        FoldNorms()(norm_first, StepContext(example=torch.rand(1, 3, 8, 8)))


def test_a_net_without_batch_norms_is_refused():
    net = timm.create_model("convnext_atto", num_classes=9)
    with pytest.raises(InputError, match="nothing to fold"):
        FoldNorms()(net, StepContext(example=torch.rand(1, 3, 32, 32)))


class ReadsTwice(nn.Module):
    """The weight before a norm is read a second time, past it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x)) + nn.functional.conv2d(x, self.conv.weight)


def test_a_fold_is_proven_on_the_example():
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    net[1].running_var.uniform_(0.5, 2)
    plan = FoldNorms().plan(net, x)
    assert plan.verified < 1e-10
    assert "verified: " in str(plan)
    assert FoldNorms(verify=False).plan(net, x).verified is None


def test_a_fold_that_changes_the_answers_is_refused():
    net, x = ReadsTwice().eval(), torch.randn(2, 3, 8, 8)
    net.norm.running_var.uniform_(2, 4)
    with pytest.raises(InputError, match=r"compute something else.*verify=False"):
        FoldNorms().plan(net, x)
