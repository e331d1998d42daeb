"""Factors that are exact at full rank, ranks by every rule, and budgets that are never exceeded."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn

from solution.compress.decompose import Decompose, DecomposePlan
from solution.compress.factors import factored, low_rank
from solution.contracts import InputError, StepContext
from solution.evaluate.audit import audit
from solution.evaluate.cost import macs, params

EXAMPLE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
GIVEN = StepContext(example=EXAMPLE)


def low_rank_net():
    """Weights of rank 4 (the linear layer: 2) plus a little noise, so that every rule has something to find."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 48, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(48, 64, 1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 40),
    ).eval()
    for place, rank in ((2, 4), (4, 4), (9, 2)):
        weight = model[place].weight.data
        last, first = torch.randn(len(weight), rank), torch.randn(rank, weight.shape[1])
        middle = torch.randn(rank, rank, *weight.shape[2:]) if weight.ndim == 4 else torch.eye(rank)
        weight.copy_(torch.einsum("or,rs...,si->oi...", last, middle, first) + 0.01 * torch.randn_like(weight))
    return model


@st.composite
def convolutions(draw):
    kernel, groups = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 99)))
    return nn.Conv2d(
        groups * draw(st.integers(1, 6)),
        groups * draw(st.integers(1, 6)),
        kernel,
        groups=groups,
        stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "circular", "replicate"])),
    ).double()


@given(convolutions())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_at_full_rank_factors_are_equal_to_their_convolution(conv):
    x = torch.randn(2, conv.in_channels, 8, 9, dtype=torch.float64)
    outputs, inputs, height, width = conv.weight.shape
    outputs //= conv.groups
    area = height * width
    ranks = {"tucker": (min(outputs, inputs * area), min(inputs, outputs * area))}
    ranks["spatial"] = (min(inputs * height, outputs * width),)
    if area == 1:
        ranks["svd"] = (min(inputs, outputs),)
    for method, full in ranks.items():
        made = factored(conv, method, full)
        assert all(type(layer) is nn.Conv2d and layer.groups == conv.groups for layer in made)
        assert torch.allclose(made(x), conv(x), rtol=1e-9, atol=1e-10), method


def test_same_padding_and_linear_layers():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    conv = nn.Conv2d(4, 5, 3, padding="same", dilation=2).double()
    for method, ranks in (("spatial", (12,)), ("tucker", (5, 4))):
        assert torch.allclose(factored(conv, method, ranks)(x), conv(x))
    linear = nn.Linear(7, 4).double()
    assert torch.allclose(factored(linear, "svd", (4,))(x), linear(x))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_low_rank_is_the_nearest_and_balanced(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    left, right = low_rank(matrix, 3)
    energies = torch.linalg.svdvals(matrix) ** 2
    assert (matrix - left @ right).square().sum().item() == pytest.approx(energies[3:].sum().item())
    assert torch.allclose(left.norm(dim=0), right.norm(dim=1))
    left, right = low_rank(torch.zeros(shape), 2)
    assert not (left @ right).any()


def test_vbmf_finds_the_planted_ranks():
    plan = Decompose().plan(low_rank_net(), GIVEN)
    found = {path: (layer["method"], layer["ranks"]) for path, layer in plan.layers.items()}
    assert found == {"2": ("tucker", (4, 4)), "4": ("svd", (4,)), "9": ("svd", (2,))}
    assert plan.left["6"] == plan.left["0"] == "all of it looks like noise to VBMF"


def test_the_planted_net_hardly_changes():
    net = low_rank_net()
    made = Decompose()(net, GIVEN)
    before, after = net(EXAMPLE), made(EXAMPLE)
    assert ((before - after).norm() / before.norm()).item() < 0.02
    assert macs(made, EXAMPLE) < 0.5 * macs(net, EXAMPLE)


@pytest.mark.parametrize("method", ["svd", "spatial", "tucker", "auto"])
def test_energy_keeps_what_it_says(method):
    net = low_rank_net()
    plan = Decompose(method=method, rank="energy", energy=0.95).plan(net, GIVEN)
    made = plan.apply(net)
    for path, layer in plan.layers.items():
        assert 0 <= layer["lost"] <= 0.05
        x = torch.randn(3, net[int(path)].weight.shape[1], *((9, 9) if net[int(path)].weight.ndim == 4 else ()))
        whole, parts = net[int(path)](x), made[int(path)](x)
        assert ((whole - parts).norm() / whole.norm()).item() < 0.5
    kinds = {layer["method"] for layer in plan.layers.values()}
    assert kinds <= ({method} if method != "auto" else {"svd", "spatial", "tucker"})


def test_the_loss_told_is_the_loss_of_the_weights():
    net = low_rank_net()
    plan = Decompose(rank=3, layers=("4", "9")).plan(net, GIVEN)
    made = plan.apply(net)
    for path in ("4", "9"):
        whole = net[int(path)].weight.flatten(1)
        parts = made[int(path)][1].weight.flatten(1) @ made[int(path)][0].weight.flatten(1)
        lost = ((whole - parts).square().sum() / whole.square().sum()).item()
        assert plan.layers[path]["lost"] == pytest.approx(lost, rel=1e-3)


def test_a_number_and_a_fraction():
    plan = Decompose(rank=5, layers=("2", "4", "9"), method="auto").plan(low_rank_net(), GIVEN)
    assert {layer["ranks"] for layer in plan.layers.values()} <= {(5,), (5, 5)}
    plan = Decompose(rank=0.25, method="svd").plan(low_rank_net(), GIVEN)
    assert {path: layer["ranks"] for path, layer in plan.layers.items()} == {"4": (12,), "9": (10,)}


def test_the_macs_told_are_those_counted():
    net = low_rank_net()
    for rank in (2, 0.3, "energy"):
        plan = Decompose(rank=rank).plan(net, GIVEN)
        before, after = plan.saves["macs"]
        assert (before, after) == (macs(net, EXAMPLE), macs(plan.apply(net), EXAMPLE))
        assert before - after == sum(old - new for old, new in (row["macs"] for row in plan.layers.values()))
        assert plan.saves["params"] == (params(net), params(plan.apply(net)))


@pytest.mark.parametrize(
    ("method", "shares"),
    [("auto", (0.9, 0.7, 0.5)), ("spatial", (0.9, 0.7)), ("tucker", (0.9, 0.7)), ("svd", (0.999, 0.998, 0.996))],
)
def test_a_budget_is_never_exceeded_and_nearly_used(method, shares):
    net = low_rank_net()
    full = macs(net, EXAMPLE)
    losses = []
    for share in shares:
        plan = Decompose(method=method, macs=f"{share:.1%}").plan(net, GIVEN)
        assert 0.97 * share * full <= plan.saves["macs"][1] <= share * full
        losses.append(sum(layer["lost"] for layer in plan.layers.values()))
    assert losses == sorted(losses)
    assert Decompose(method=method, macs=int(shares[-1] * full)).plan(net, GIVEN) == plan


def test_a_budget_spends_where_least_is_lost():
    """The layers of low rank pay; the one of full rank stays."""
    plan = Decompose(macs="50%").plan(low_rank_net(), GIVEN)
    assert plan.left["0"] == "the budget is met without it"
    assert sum(layer["lost"] for layer in plan.layers.values()) < 0.01


def test_an_unreachable_budget_names_the_least():
    net = low_rank_net()
    with pytest.raises(InputError, match=r"cannot be reached: the least is .*6 \(protected\)") as caught:
        Decompose(macs="1%", protect=("6",))(net, GIVEN)
    least = int(str(caught.value).split("the least is ")[1].split(". ")[0].replace(",", ""))
    assert Decompose(macs=least, protect=("6",)).plan(net, GIVEN).saves["macs"][1] == least
    with pytest.raises(InputError, match="cannot be reached"):
        Decompose(macs=least - 1, protect=("6",)).plan(net, GIVEN)


def test_the_audit_trusts_the_factors():
    assert audit(Decompose(macs="50%")(low_rank_net(), GIVEN), EXAMPLE).ok


def test_what_was_frozen_stays_frozen_and_no_random_number_is_drawn():
    net = low_rank_net()
    net[4].weight.requires_grad_(False)
    state = torch.get_rng_state()
    made = Decompose().plan(net, GIVEN).apply(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert [layer.weight.requires_grad for layer in (*made[4], *made[9])] == [False, False, True, True]
    assert made[4][1].bias.requires_grad


class Odd(nn.Module):
    """A layer called twice, one whose weight is read without a call, one of another class."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.read = nn.Linear(3, 3)
        self.other = nn.ConvTranspose2d(3, 3, 3)

    def forward(self, x):
        x = self.other(self.twice(input=self.twice(x))).mean((2, 3))
        return nn.functional.linear(x, self.read.weight)


def test_odd_layers_are_left_and_named_and_calls_are_added_up():
    plan = Decompose(rank=1).plan(Odd().eval(), GIVEN)
    assert plan.left == {
        "read": "it is never called",
        "other": "it is a ConvTranspose2d: only plain Conv2d and Linear are split",
    }
    before, after = plan.layers["twice"]["macs"]
    assert before == 2 * 81 * 144
    assert plan.saves["macs"][0] - plan.saves["macs"][1] == before - after


def test_a_net_that_is_one_layer():
    torch.manual_seed(0)
    made = Decompose(rank=1)(nn.Linear(8, 8), StepContext(example=torch.randn(2, 8)))
    assert [tuple(layer.weight.shape) for layer in made] == [(1, 8), (8, 1)]


def test_the_plan_survives_json_and_replays_on_a_fresh_net():
    net = low_rank_net()
    plan = Decompose(macs="50%").plan(net, GIVEN)
    again = DecomposePlan.from_fields(json.loads(json.dumps(plan.to_fields())))
    assert again == plan
    fresh, made = low_rank_net(), plan.apply(net)
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    fresh = again.apply(fresh)
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(EXAMPLE), made(EXAMPLE))


def test_the_plan_reads_as_a_table():
    text = str(Decompose().plan(low_rank_net(), GIVEN))
    assert "layer  method  ranks" in text
    assert "tucker   4, 4" in text
    assert "6: left as it is, all of it looks like noise to VBMF" in text
    assert "macs:" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "cp"}, "method must be one of auto, svd, spatial, tucker, got 'cp'"),
        ({"rank": "best"}, "rank must be .*, got 'best'"),
        ({"rank": 0}, "got 0"),
        ({"rank": 2.5}, "got 2.5"),
        ({"energy": 1.0}, "in .0, 1., got 1.0"),
        ({"macs": 0}, "macs must be .*, got 0"),
        ({"macs": 0.9}, r"macs=0.9 could mean .*macs=\"90%\".*macs=\"10%\""),
        ({"macs": float("nan")}, "got nan"),
        ({"macs": "1G"}, "nothing to do: macs must come below"),
        ({"rank": 1000}, r"nothing would be split: .*it would not gain: .* at rank"),
        ({"layers": ("6",)}, "nothing would be split: 6 .all of it looks like noise to VBMF"),
        ({"protect": ("*",)}, "nothing would be split: 0 .protected.; .* and 1 more"),
        ({"protect": ("stem",)}, "nothing matches 'stem'"),
    ],
)
def test_what_cannot_be_done_is_explained(fields, message):
    with pytest.raises(InputError, match=message):
        Decompose(**fields)(low_rank_net(), GIVEN)


def test_nan_weights_wrong_inputs_and_other_nets_are_named():
    net = low_rank_net()
    plan = Decompose(rank=2, layers=("4",)).plan(net, GIVEN)
    with pytest.raises(InputError, match=r"Sequential does not run on images of 1 x 5 x 12 x 12"):
        Decompose()(net, StepContext(example=torch.randn(1, 5, 12, 12)))
    net[4].weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"4\.weight holds NaN"):
        Decompose()(net, GIVEN)
    with pytest.raises(InputError, match="another net: there is no layer '4'"):
        plan.apply(nn.Sequential(nn.ReLU()))
    net[4] = nn.ConvTranspose2d(64, 48, 1)
    with pytest.raises(InputError, match="another net: 4 cannot be split so, it is a ConvTranspose2d"):
        plan.apply(net)


def test_a_layer_whose_weight_others_read_stays_whole():
    """PyTorch's encoder layer reads the weights of its linear layers on its fast path."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), nn.Linear(32, 32)).eval()
    x = torch.randn(2, 5, 32)
    plan = Decompose(rank=4).plan(net, x)
    assert list(plan.layers) == ["1"]
    assert plan.left["0.linear1"] == plan.left["0.linear2"] == "its weight is read by other modules"
    assert plan.apply(net)(x).shape == x.shape
