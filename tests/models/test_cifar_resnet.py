"""ResNets for small pictures: the paper's sizes, shortcuts without weights, cuts and checkpoints."""

import pytest
import torch

from solution import PruneChannels, checkpoint
from solution.contracts import InputError, StepContext
from solution.evaluate.cost import macs_dispatched, params
from solution.models.cifar_resnet import BasicBlock, CifarResNet


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (56, 0.85), (110, 1.73)])
def test_parameters_are_those_of_the_paper(depth, millions):
    net = CifarResNet(depth=depth).build(10)
    assert params(net) / 1e6 == pytest.approx(millions, abs=0.005)
    weighted = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == depth


def test_multiply_accumulates_of_the_widely_used_net():
    assert macs_dispatched(CifarResNet(depth=56).build(10), torch.zeros(1, 3, 32, 32)) == 125_485_706


def test_new_channels_of_a_shortcut_are_zeros():
    block = BasicBlock(2, 6).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 4:].any()


def test_a_cut_net_reloads(tmp_path):
    net = CifarResNet(depth=8).build(4)
    smaller = PruneChannels(macs="50%")(net, StepContext(example=torch.zeros(1, 3, 32, 32))).eval()
    header = checkpoint.header_of(smaller, classes=tuple("abcd"), mean=(0.5,) * 3, std=(0.2,) * 3, size=32)
    checkpoint.save(tmp_path / "net.safetensors", smaller, header)
    again, _ = checkpoint.load(tmp_path / "net.safetensors")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), smaller(images))


@pytest.mark.parametrize(("wrong", "message"), [({"depth": 51}, "6n \\+ 2"), ({"width": 0}, "above 0, got 0")])
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        CifarResNet(**wrong)
