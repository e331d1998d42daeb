"""Codebooks: few values, exact zeros, and a training that moves the values only."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from solution.compress.cluster import Cluster, ClusterPlan, clusters
from solution.compress.parametrized import materialize_all
from solution.compress.prune_weights import PruneWeights
from solution.contracts import InputError, StepContext
from solution.evaluate.audit import audit
from solution.evaluate.cost import macs, sparsity
from solution.train.step import Train

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
GIVEN = StepContext(example=EXAMPLE)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6)).eval()


def test_separate_heaps_are_found():
    chance = np.random.default_rng(0)
    heaps = np.repeat([-3.0, 0.0, 1.0, 5.0], 50)
    for init in ("k-means++", "linear"):
        codes = clusters(heaps + chance.normal(0, 0.05, 200), 4, init, 0)
        assert codes.tolist() == np.repeat([0, 1, 2, 3], 50).tolist()


def test_few_distinct_values_are_kept_exactly():
    values = np.array([0.5, -1.0, 0.5, 2.0])
    assert clusters(values, 16, "k-means++", 0).tolist() == [1, 0, 1, 2]


def test_the_error_is_near_the_best_known():
    """Lloyd's optimal 16-level quantizer of a Gaussian has a mean squared error of 0.0095 (Max, 1960)."""
    values = np.random.default_rng(0).normal(size=100_000)
    codes = clusters(values, 16, "k-means++", 0)
    means = np.bincount(codes, values) / np.bincount(codes)
    assert np.square(values - means[codes]).mean() == pytest.approx(0.0095, rel=0.06)


def test_eight_bits_of_many_weights_use_every_code():
    codes = clusters(np.random.default_rng(0).normal(size=200_000), 256, "k-means++", 0)
    assert len(np.unique(codes)) == 256


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_layer_has_so_many_values_and_the_checkpoint_holds_codes(bits):
    made = Cluster(bits=bits)(net(), GIVEN)
    state = made.state_dict()
    for place in (0, 3):
        assert len(made[place].weight.unique()) == 2**bits
        assert state[f"{place}.parametrizations.weight.0.codes"].dtype == torch.uint8
        assert state[f"{place}.parametrizations.weight.original"].shape == (1, 2**bits)
        assert f"{place}.weight" not in state
    error = (made[3].weight - net()[3].weight).square().mean() / net()[3].weight.square().mean()
    assert error < 4.0 ** (1 - bits)


def test_eight_bits_for_what_is_large_enough():
    plan = Cluster(bits=8).plan(net(), GIVEN)
    assert list(plan.layers) == ["3"]
    assert plan.left == {"0": "with a codebook it would not get smaller"}
    assert len(plan.apply(net())[3].weight.unique()) <= 256


def test_every_group_of_channels_has_its_own_codebook():
    plan = Cluster(bits=2, groups=4).plan(net(), GIVEN)
    assert {path: layer["groups"] for path, layer in plan.layers.items()} == {"0": 4, "3": 2}
    made = plan.apply(net())
    for rows in made[0].weight.chunk(4):
        assert len(rows.unique()) == 4
    assert len(made[0].weight.unique()) == 16


def test_values_are_the_means_of_their_weights():
    before, made = net()[3].weight, Cluster(bits=3)(net(), GIVEN)[3].weight
    for value in made.unique():
        assert before[made == value].mean().item() == pytest.approx(value.item(), rel=1e-5)


def test_zeros_stay_zeros_and_are_one_of_the_values(small_net, toy):
    sparse = PruneWeights(sparsity=0.6, scope="local")(small_net, toy)
    made = Cluster(bits=3)(sparse, toy)
    assert sparsity(made) == sparsity(sparse)
    trained = Train(epochs=1, lr=0.05)(made, toy)
    assert sparsity(trained) == sparsity(sparse)
    assert all(len(layer.weight.unique()) <= 8 for layer in trained.modules() if hasattr(layer, "parametrizations"))


def test_training_moves_the_values_and_not_the_codes(small_net, toy):
    made = Cluster(bits=3)(small_net, toy)
    trained = Train(epochs=2, lr=0.05, ema_decay=0.9)(made, toy)
    before, after = made.state_dict(), trained.state_dict()
    codes = [name for name in before if name.endswith(".codes")]
    books = [name for name in before if name.endswith(".original")]
    assert codes
    assert all(torch.equal(before[name], after[name]) for name in codes)
    assert not any(torch.equal(before[name], after[name]) for name in books)


def test_a_value_takes_the_mean_step_of_its_weights():
    plain, made = net(), Cluster(bits=2)(net(), GIVEN)
    with torch.no_grad():
        for place in (0, 3):
            plain[place].weight.copy_(made[place].weight)
    for model in (plain, made):
        model(EXAMPLE).square().sum().backward()
    gradient = made[3].parametrizations.weight.original.grad[0]
    codes = made[3].parametrizations.weight[0].codes
    for code in range(4):
        assert gradient[code].item() == pytest.approx(plain[3].weight.grad[codes == code].mean().item(), rel=1e-3)


def test_a_weight_that_is_set_is_projected():
    made = Cluster(bits=2)(net(), GIVEN)
    made[3].weight = torch.ones_like(made[3].weight)
    assert torch.equal(made[3].weight, torch.ones_like(made[3].weight))


def test_the_same_seed_gives_the_same_codes_and_another_seed_is_in_the_plan():
    plan = Cluster(bits=4).plan(net(), GIVEN)
    first, second = (plan.apply(net()).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert Cluster(bits=4).plan(net(), StepContext(example=EXAMPLE, seed=7)).seed == 7


def test_the_plan_replays_on_a_fresh_net():
    sparse = PruneWeights(sparsity=0.5)(net(), GIVEN)
    plan = Cluster(bits=2, groups=2, init="linear").plan(sparse, GIVEN)
    again = ClusterPlan.from_fields(json.loads(json.dumps(plan.to_fields())))
    assert again == plan
    made = plan.apply(sparse)
    fresh = again.apply(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6)).eval())
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(EXAMPLE), made(EXAMPLE))
    assert torch.equal(materialize_all(fresh)[3].weight, made[3].weight)


def test_the_plan_prints_and_its_bytes_are_those_of_the_state():
    plan = Cluster(bits=4).plan(net(), GIVEN)
    made = plan.apply(net()).state_dict()
    held = sum(tensor.nbytes for name, tensor in made.items() if "parametrizations" in name)
    assert plan.saves == {"bytes": (4 * (216 + 1728), held)}
    assert plan.packed == (216 + 1728) // 2 + 2 * 16 * 4
    table = str(plan)
    assert "3        1,728          1      16  6,912 -> 1,792" in table
    assert "packed at 4 bits a weight: 1,100 bytes" in table


def test_cost_and_audit_see_the_layers_as_before():
    made = Cluster()(net(), GIVEN)
    assert macs(made, EXAMPLE) == macs(net(), EXAMPLE)
    assert audit(made, EXAMPLE).ok


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 1}, "between 2 and 8, got 1"),
        ({"bits": 9}, "got 9"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"init": "random"}, "init must be one of .*, got 'random'"),
        ({"layers": ("fc",)}, "nothing matches 'fc'"),
        ({"layers": ("0",), "bits": 8}, "nothing would be clustered: with a codebook it would not get smaller"),
        ({"protect": ("*",)}, "nothing would be clustered: protected"),
    ],
)
def test_what_cannot_be_done_is_explained(fields, message):
    with pytest.raises(InputError, match=message):
        Cluster(**fields)(net(), GIVEN)


def test_nan_weights_other_nets_and_a_second_time_are_refused():
    broken = net()
    broken[3].weight.data[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"3\.weight holds NaN or infinite"):
        Cluster()(broken, GIVEN)
    plan = Cluster().plan(net(), GIVEN)
    with pytest.raises(InputError, match=r"another net: the weight of 3 is \(6, 288\) there, here ReLU"):
        plan.apply(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.ReLU()))
    with pytest.raises(InputError, match="it has such a codebook already"):
        Cluster()(plan.apply(net()), GIVEN)
