"""Zeros: how many, where, and that they stay."""

import json

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from solution.compress.parametrized import materialize_all
from solution.compress.prune_weights import PruneWeights, SparsityPlan, smallest
from solution.contracts import InputError, StepContext
from solution.evaluate.audit import audit
from solution.evaluate.cost import macs, params, sparsity
from solution.train.step import Train

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
GIVEN = StepContext(example=EXAMPLE)


def net():
    """The second layer's weights are ten times the first's; 216 and 1,440 weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).eval()
    model[0].weight.data.uniform_(0.01, 0.1)
    model[3].weight.data.uniform_(0.1, 1.0)
    return model


def zeros(model):
    return [int((model[place].weight == 0).sum()) for place in (0, 3)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
@settings(max_examples=50, deadline=None)
def test_the_mask_holds_exactly_the_smallest(values, data):
    count = data.draw(st.integers(0, len(values)))
    mask = smallest(torch.tensor(values, dtype=torch.float32), count)
    assert int(mask.sum()) == count
    marked = [value for value, hit in zip(values, mask, strict=True) if hit]
    assert sorted(marked) == sorted(values)[:count]


def test_global_takes_the_least_of_all_and_spares_the_last_weight_of_a_layer():
    assert zeros(PruneWeights(sparsity=0.1)(net(), GIVEN)) == [166, 0]
    assert zeros(PruneWeights(sparsity=0.5)(net(), GIVEN)) == [215, 612]


def test_local_takes_the_same_share_of_each():
    assert zeros(PruneWeights(sparsity=0.25, scope="local")(net(), GIVEN)) == [54, 360]


@pytest.mark.parametrize("scope", ["global", "local"])
def test_more_counts_from_the_weights_that_are_left(scope):
    half = PruneWeights(sparsity=0.5, layers=("3",))(net(), GIVEN)
    assert zeros(half) == [0, 720]
    sparser = zeros(PruneWeights(sparsity=0.1, more=True, scope=scope)(half, GIVEN))
    assert sum(sparser) == 720 + round(0.1 * (216 + 720))
    if scope == "local":
        assert sparser == [22, 792]


def test_the_largest_weights_are_kept_as_they_are():
    before, after = net(), PruneWeights(sparsity=0.25, scope="local")(net(), GIVEN)
    kept = after[3].weight != 0
    assert torch.equal(after[3].weight[kept], before[3].weight[kept])
    assert before[3].weight[~kept].max() <= before[3].weight[kept].min()


def test_the_plan_tells_percent_truthfully():
    plan = PruneWeights(sparsity=0.25, scope="local", layers=("3",)).plan(net(), GIVEN)
    made = plan.apply(net())
    assert plan.zeros == {"3": (0, 360)}
    assert plan.total == (0.0, sparsity(made)) == (0.0, pytest.approx(100 * 360 / 1656))
    table = str(plan)
    assert "3        1,440         0.0 %  25.0 %" in table
    assert "zeros in the whole net: 0.00 % -> 21.74 %" in table
    assert "macs: unchanged" in table


def test_layers_and_protection():
    made = PruneWeights(sparsity=0.5, protect=("0",)).plan(net(), GIVEN)
    assert list(made.zeros) == ["3"]
    assert "0: left as it is, protected" in str(made)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_stay_zero_in_training(small_net, toy, optimizer):
    sparse = PruneWeights(sparsity=0.7, scope="local")(small_net, toy)
    before = {name: tensor.clone() for name, tensor in sparse.state_dict().items() if name.endswith(".original")}
    trained = Train(epochs=2, lr=0.05, optimizer=optimizer, ema_decay=0.9)(sparse, toy).state_dict()
    assert before
    for name, tensor in before.items():
        assert torch.equal(trained[name] == 0, tensor == 0)
        assert not torch.equal(trained[name], tensor)


def test_pruning_again_only_adds():
    once = PruneWeights(sparsity=0.3, scope="local")(net(), GIVEN)
    gone = [once[place].weight == 0 for place in (0, 3)]
    for step in (PruneWeights(sparsity=0.6, scope="local"), PruneWeights(sparsity=0.6)):
        plan = step.plan(once, GIVEN)
        twice = plan.apply(once)
        assert all(bool((twice[place].weight[mask] == 0).all()) for place, mask in zip((0, 3), gone, strict=True))
        assert plan.total == (pytest.approx(30, abs=0.1), pytest.approx(60, abs=0.1))
    with pytest.raises(InputError, match=r"nothing would become zero: 30\.0 % .* are, 20\.0 % is the target"):
        PruneWeights(sparsity=0.2)(once, GIVEN)


def test_cost_and_audit_see_the_layers_as_before():
    made = PruneWeights(sparsity=0.5)(net(), GIVEN)
    assert (macs(made, EXAMPLE), params(made)) == (macs(net(), EXAMPLE), params(net()))
    assert audit(made, EXAMPLE).ok
    state, plain = made.state_dict(), net().state_dict()
    assert sum(t.nbytes for t in state.values()) == sum(t.nbytes for t in plain.values())


def test_the_plan_replays_on_a_fresh_net():
    plan = PruneWeights(sparsity=0.5).plan(net(), GIVEN)
    again = SparsityPlan.from_fields(json.loads(json.dumps(plan.to_fields())))
    assert again == plan
    fresh = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).eval()
    fresh, made = again.apply(fresh), plan.apply(net())
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(EXAMPLE), made(EXAMPLE))
    assert torch.equal(materialize_all(fresh)[0].weight, made[0].weight)


def test_half_precision():
    made = PruneWeights(sparsity=0.5, scope="local")(net().to(torch.bfloat16), GIVEN)
    assert zeros(made) == [108, 720]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": 0.0}, "in .0, 1., got 0.0"),
        ({"sparsity": 1.0}, "got 1.0"),
        ({"sparsity": float("nan")}, "got nan"),
        ({"scope": "all"}, "scope must be one of global, local, got 'all'"),
        ({"layers": ("fc",)}, "nothing matches 'fc'"),
        ({"sparsity": 1e-6}, "nothing would become zero"),
        ({"protect": ("*",)}, "nothing would become zero"),
    ],
)
def test_what_cannot_be_done_is_explained(fields, message):
    with pytest.raises(InputError, match=message):
        PruneWeights(**fields)(net(), GIVEN)


def test_nan_weights_and_other_nets_are_named():
    broken = net()
    broken[3].weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"3\.weight holds NaN"):
        PruneWeights()(broken, GIVEN)
    plan = PruneWeights().plan(net(), GIVEN)
    with pytest.raises(InputError, match="another net: there is no layer '3'"):
        plan.apply(nn.Sequential(nn.Conv2d(3, 8, 3)))
