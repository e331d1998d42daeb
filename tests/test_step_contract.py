"""Every step keeps one contract: see `solution.contracts.Step`."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from solution import checkpoint
from solution.compress.plans import PLANS
from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, StructuralStep, origin_of
from solution.evaluate.cost import macs, params
from solution.runtime import ROOT
from solution.train.step import Train

STEPS = {
    "train": Train(epochs=1),
    "prune_layers by units": PruneLayers(units=(2, 1, 1), ranking="last"),
    "prune_layers by measured loss": PruneLayers(count=2),
}
NO_OPS = {
    "prune_layers to what there is": PruneLayers(units=(3, 3, 2)),
}
COST = {"macs": macs, "params": lambda model, _: params(model)}
STRUCTURAL = [name for name, step in STEPS.items() if isinstance(step, StructuralStep)]


@pytest.fixture(params=STEPS)
def step(request):
    return STEPS[request.param]


@pytest.fixture(params=STRUCTURAL)
def structural(request):
    return STEPS[request.param]


def state_bytes(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_the_input_is_left_untouched(step, small_net, toy):
    before, modules, training = state_bytes(small_net), str(small_net), small_net.training
    step(small_net, toy)
    assert (state_bytes(small_net), str(small_net), small_net.training) == (before, modules, training)
    assert all(parameter.grad is None for parameter in small_net.parameters())


def test_the_output_has_the_shape_of_before(step, small_net, toy):
    assert step(small_net, toy)(toy.example).shape == small_net(toy.example).shape


def test_the_declared_currency_does_not_rise(step, small_net, toy):
    if step.currency is None:
        pytest.skip("this step promises nothing about cost")
    cost = COST[step.currency]
    assert cost(step(small_net, toy), toy.example) < cost(small_net, toy.example)


def test_the_same_seed_gives_the_same_model(step, small_net, toy):
    assert state_bytes(step(small_net, toy)) == state_bytes(step(small_net, toy))


def test_the_plan_survives_json_and_replays_to_the_same_net(structural, small_net, toy):
    plan = structural.plan(small_net, toy)
    fields = json.loads(json.dumps(plan.to_fields()))
    again = PLANS[fields["kind"]].from_fields(fields)
    assert again == plan
    assert str(again) == str(plan)
    assert state_bytes(again.apply(small_net)) == state_bytes(plan.apply(small_net))


def test_the_model_remembers_its_plan(structural, small_net, toy):
    plan = structural.plan(small_net, toy)
    assert origin_of(plan.apply(small_net)).plans == (plan,)
    assert origin_of(small_net).plans == ()


def test_the_checkpoint_reloads_to_the_same_bits_in_a_fresh_process(step, small_net, toy, tmp_path):
    model = step(small_net, toy).eval()
    header = checkpoint.header_of(model, classes=toy.classes, mean=(0.5,) * 3, std=(0.5,) * 3, size=32)
    checkpoint.save(tmp_path / "model.safetensors", model, header)
    torch.save((toy.example, model(toy.example).detach()), tmp_path / "pair.pt")
    code = (
        "import sys, torch; from pathlib import Path; from solution import checkpoint;"
        "from solution.runtime import set_threads; set_threads(); folder = Path(sys.argv[1]);"
        "net, _ = checkpoint.load(folder / 'model.safetensors');"
        "x, y = torch.load(folder / 'pair.pt', weights_only=True); sys.exit(not torch.equal(net(x), y))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("name", NO_OPS)
def test_a_step_that_would_do_nothing_is_refused(name, small_net, toy):
    with pytest.raises(InputError, match="nothing"):
        NO_OPS[name](small_net, toy)


def test_a_step_works_on_a_copy_with_its_own_history(small_net, toy):
    first = STEPS["prune_layers by units"](small_net, toy)
    second = PruneLayers(units=(1, 1, 1), ranking="last")(copy.deepcopy(first), replace(toy, seed=1))
    assert len(origin_of(second).plans) == 2
