import copy

import pytest
import timm
import torch
from torch import nn

from solution.contracts import InputError
from solution.models.shufflenet import ShuffleNet, drop_branch, set_drop_path


def test_a_branch_is_zero_or_scaled_up_image_by_image_and_keeps_its_mean():
    torch.manual_seed(0)
    out = drop_branch(torch.ones(4000, 2, 3, 3), 0.2)
    per_image = out.flatten(1)
    assert torch.equal(per_image.amin(1), per_image.amax(1))
    assert sorted(set(per_image[:, 0].tolist())) == pytest.approx([0, 1.25])
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    branch = torch.ones(2, 1, 1, 1)
    assert drop_branch(branch, 0.0) is branch


def test_deeper_units_are_skipped_more_and_those_that_change_the_shape_never():
    net = ShuffleNet(units=(2, 3, 1), width=0.1).build(num_classes=3)
    set_drop_path(net, 0.3)
    rates = {name: module.drop_path for name, module in net.named_modules() if hasattr(module, "drop_path")}
    expected = {"features.stage1.unit2": 0.1, "features.stage2.unit2": 0.2, "features.stage2.unit3": 0.3}
    assert rates == pytest.approx(expected)


def test_a_skipped_unit_hands_its_input_on_and_judging_skips_nothing():
    torch.manual_seed(0)
    net = ShuffleNet(units=(2, 1, 1), width=0.1).build(num_classes=3)
    unit, x = net.features.stage1.unit2, torch.rand(64, net.features.stage1.unit2.expand_conv3.out_channels, 8, 8)
    whole = copy.deepcopy(unit).train()(x)
    set_drop_path(net, 0.5)
    same = (unit.train()(x) == x).flatten(1).all(1).float().mean()
    assert 0.3 < same < 0.7
    assert not (whole == x).flatten(1).all(1).any()
    before = net.eval()(torch.ones(1, 3, 32, 32))
    set_drop_path(net, 0.0)
    assert torch.equal(net(torch.ones(1, 3, 32, 32)), before)


def test_a_net_without_such_blocks_is_refused():
    set_drop_path(nn.Linear(2, 2), 0.0)
    with pytest.raises(InputError, match="Linear has no block that can be skipped while training: set drop_path to 0"):
        set_drop_path(nn.Linear(2, 2), 0.1)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_what_other_libraries_keep_under_this_name_is_left_alone(name):
    net = timm.create_model(name, num_classes=3)
    set_drop_path(net, 0.0)
    assert net(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(InputError, match="has no block"):
        set_drop_path(net, 0.1)
