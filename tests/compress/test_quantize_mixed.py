"""Mixed precision: sensitivities, the order of steps down, and the two budgets."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from solution.compress.quantization.forms import stored_bytes
from solution.compress.quantization.mixed import Steps, first_within, last_good, sensitivities, steps_down, weight_bytes
from solution.compress.quantize import Quantize
from solution.contracts import InputError
from solution.evaluate.classify import classify, predictor
from solution.models.shufflenet import ShuffleNet

NAMES = ("int8", "int4", "int2")


@pytest.fixture
def two_layers():
    """A layer that matters, and one whose answers are almost lost in those that pass it by."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.loud, self.quiet, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x):
            return self.head((self.loud(x) + 1e-3 * self.quiet(x)).relu().mean((2, 3)) * 20)

    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def small_net():
    """Few layers: each is measured alone, in every scheme."""
    torch.manual_seed(0)
    return ShuffleNet(units=(2, 1), width=0.1).build(num_classes=3).eval()


def images():
    return [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_sensitivity_rises_with_fewer_bits_and_with_what_a_layer_matters(two_layers):
    before = copy.deepcopy(two_layers.state_dict())
    harm = sensitivities(two_layers, ("loud", "quiet"), NAMES, images())
    assert harm["loud", "int8"] < harm["loud", "int4"] < harm["loud", "int2"]
    assert harm["quiet", "int2"] < 0.01 * harm["loud", "int2"]
    assert all(torch.equal(before[name], tensor) for name, tensor in two_layers.state_dict().items())


def test_what_matters_least_steps_down_first(two_layers):
    harm = sensitivities(two_layers, ("loud", "quiet"), NAMES, images())
    steps = steps_down(two_layers, NAMES, harm, ("loud", "quiet"))
    assert steps.mixes[0] == {"loud": "int8", "quiet": "int8"}
    assert steps.mixes[1]["loud"] == "int8"
    assert steps.mixes[-1] == {"loud": "int2", "quiet": "int2"}
    lowest = weight_bytes(two_layers.loud, "int2")
    assert steps.saved[-1] == 2 * (weight_bytes(two_layers.loud, "int8") - lowest)
    assert list(steps.saved) == sorted(steps.saved)


def test_bytes_of_a_weight_hold_its_scales():
    assert weight_bytes(nn.Conv2d(4, 6, 3), "int4") == 4 * 6 * 9 // 2 + 6 * 2
    assert weight_bytes(nn.Conv2d(4, 6, 3), "float16") == 4 * 6 * 9 * 2


def numbered(count):
    return Steps(mixes=tuple({"layer": str(i)} for i in range(count)), saved=tuple(10 * i for i in range(count)))


@pytest.mark.parametrize(("excess", "found"), [(-5, "0"), (0, "0"), (1, "1"), (20, "2")])
def test_the_first_mix_within_a_byte_budget(excess, found):
    assert first_within(numbered(3), excess) == {"layer": found}


def test_a_byte_budget_that_cannot_be_met_says_by_how_much():
    with pytest.raises(InputError, match="cannot be met: the fewest bits of every layer are 5 bytes above it"):
        first_within(numbered(3), 25)


@pytest.mark.parametrize("good", range(1, 9))
def test_the_last_good_mix_is_found_by_few_measurements(good):
    asked = []

    def is_good(mix):
        asked.append(mix)
        return int(mix["layer"]) < good

    assert last_good(numbered(8), is_good) == {"layer": str(good - 1)}
    assert len(asked) <= 5


def test_no_good_mix_is_an_error():
    with pytest.raises(InputError, match="more quality than f1_drop allows"):
        last_good(numbered(3), lambda mix: False)


def test_a_byte_budget_is_met(small_net, toy):
    step = Quantize(lower=("int4", "int2"), bytes="20%", fold_norms=True, other_dtype="float16")
    plan = step.plan(small_net, toy)
    assert 0.18 * stored_bytes(small_net) < stored_bytes(plan.apply(small_net)) <= 0.2 * stored_bytes(small_net)
    assert len(set(plan.schemes.values())) > 1
    number = dataclasses.replace(step, bytes=round(0.2 * stored_bytes(small_net))).plan(small_net, toy)
    assert number.schemes == plan.schemes


def test_a_quality_budget_binds_is_met_and_said(small_net, toy):
    said, images = [], [images for images, _ in toy.dev]
    with torch.no_grad():  # answers that differ, and are right
        mean = torch.cat([small_net(batch) for batch in images]).mean(0)
        small_net.output.bias = nn.Parameter(-mean)
        dev = [(batch, small_net(batch).argmax(1)) for batch in images]
    context = dataclasses.replace(toy, dev=dev, log=said.append)

    def f1_of(step):
        return classify(predictor(step(small_net, context)), dev).f1

    step = Quantize(lower=("int2",), f1_drop=0.2)
    assert f1_of(Quantize(scheme="int2")) < 0.8 <= f1_of(step)
    assert set(step.plan(small_net, context).schemes.values()) == {"int8", "int2"}
    assert any("F1" in line and "dev split" in line for line in said)


def test_mixed_precision_needs_the_choose_split(small_net, toy):
    with pytest.raises(InputError, match="mixed precision needs dev batches"):
        Quantize(lower=("int4",), bytes="30%").plan(small_net, dataclasses.replace(toy, dev=None))
