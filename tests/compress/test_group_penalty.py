"""The group penalty: lengths of coupled groups, and that training makes many of them small."""

import pytest
import torch
from torch import nn
from toy_nets import conv, toy_net

from solution.compress.channels.group_penalty import ChannelNorms, GroupPenalty
from solution.contracts import InputError

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_length_of_a_group_is_that_of_all_weights_cut_with_it():
    net = nn.Sequential(conv(3, 5), nn.BatchNorm2d(5), nn.ReLU(), conv(5, 2)).eval()
    parts = [net[0].weight.flatten(1), net[0].bias[:, None], net[1].weight[:, None], net[1].bias[:, None]]
    parts.append(net[3].weight.transpose(0, 1).flatten(1))
    torch.testing.assert_close(ChannelNorms(net, EXAMPLE)(net), torch.cat(parts, 1).norm(dim=1))


def test_groups_coupled_by_a_sum_are_one():
    net = toy_net("residual")
    assert len(ChannelNorms(net, EXAMPLE)(net)) == 16


def test_training_makes_groups_short_and_keeps_the_input(small_net, toy):
    norms = ChannelNorms(small_net, toy.example)

    def total(net):
        return float(norms(net).sum().detach())

    before = total(small_net)
    heavy = GroupPenalty(epochs=1, warmup_epochs=0, strength=0.5, keep="last")(small_net, toy)
    light = GroupPenalty(epochs=1, warmup_epochs=0, strength=1e-9, keep="last")(small_net, toy)
    assert total(heavy) < 0.8 * total(light)
    assert total(small_net) == before
    assert list(heavy.state_dict()) == list(small_net.state_dict())


def test_wrong_settings_and_nets_are_named(toy):
    with pytest.raises(InputError, match="strength must be above 0, got 0"):
        GroupPenalty(strength=0)
    with pytest.raises(InputError, match="no channel of the net can be cut"):
        ChannelNorms(conv(3, 8), EXAMPLE)
