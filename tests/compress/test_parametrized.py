"""Folding, and which layers a step may touch."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from solution.compress.cluster import Cluster
from solution.compress.layers import layer_for, layers_of, sound_weight
from solution.compress.parametrized import computed, materialize, materialize_all, materialized
from solution.compress.prune_weights import PruneWeights
from solution.contracts import InputError, StepContext

GIVEN = StepContext(example=torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).eval()


@pytest.mark.parametrize("step", [PruneWeights(sparsity=0.5), Cluster(bits=2)])
def test_folding_keeps_the_values_and_gives_plain_layers_back(step):
    made = step(net(), GIVEN)
    values = [made[place].weight.detach().clone() for place in (0, 3)]
    answer = made(GIVEN.example)
    plain = materialize_all(made)
    assert not any(computed(module) for module in plain.modules())
    assert type(plain[0]) is nn.Conv2d
    assert set(plain.state_dict()) == set(net().state_dict())
    assert all(torch.equal(plain[place].weight, value) for place, value in zip((0, 3), values, strict=True))
    assert torch.equal(plain(GIVEN.example), answer)


@pytest.mark.parametrize("step", [PruneWeights(sparsity=0.5), Cluster(bits=2)])
def test_folding_a_copy_leaves_the_original_whole(step):
    made = step(net(), GIVEN)
    answer = made(GIVEN.example)
    plain = materialized(made)
    assert not computed(plain[0])
    assert computed(made[0])
    assert torch.equal(made(GIVEN.example), answer)
    assert materialized(plain) is plain


def test_a_folded_layer_can_learn_at_once():
    made = Cluster(bits=2)(net(), GIVEN)
    made(GIVEN.example).sum().backward()
    materialize_all(made)(GIVEN.example).sum().backward()
    assert made[0].weight.grad.shape == made[0].weight.shape


def test_a_frozen_weight_stays_frozen():
    frozen = net()
    frozen[0].weight.requires_grad_(False)
    made = Cluster(bits=2)(frozen, GIVEN)
    assert not made[0].weight.requires_grad
    assert not materialize(made[0]).weight.requires_grad


def test_parametrizations_of_others_fold_too():
    model = net()
    weight_norm(model[0])
    answer = model(GIVEN.example)
    assert torch.allclose(materialize_all(model)(GIVEN.example), answer, atol=1e-6)
    assert type(model[0]) is nn.Conv2d


def test_layers_are_chosen_and_protected_by_pattern():
    assert list(layers_of(net(), ("*",), ())[0]) == ["0", "3"]
    chosen, left = layers_of(net(), ("*",), ("3",))
    assert list(chosen) == ["0"]
    assert left == {"3": "protected"}
    with pytest.raises(InputError, match=r"nothing matches 'stem\.\*': the net's layers are 0, 3"):
        layers_of(net(), ("*",), ("stem.*",))
    with pytest.raises(InputError, match="no convolution and no linear layer"):
        layers_of(nn.ReLU(), ("*",), ())


def test_a_weight_of_two_layers_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    chosen, left = layers_of(model, ("*",), ())
    assert list(chosen) == ["2"]
    assert left == dict.fromkeys("01", "its weights are shared with another layer")


def test_unsound_weights_are_named():
    model = net()
    model[3].weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"3\.weight holds NaN"):
        sound_weight("3", model[3])


def test_a_layer_of_another_net_is_named():
    with pytest.raises(InputError, match="another net: there is no layer 'fc'"):
        layer_for(net(), "fc", (1, 2))
    with pytest.raises(InputError, match=r"another net: the weight of 3 is \(1, 2\) there, here \(5, 288\)"):
        layer_for(net(), "3", (1, 2))
    with pytest.raises(InputError, match=r"the weight of 1 is .* here ReLU"):
        layer_for(net(), "1", (1, 2))
