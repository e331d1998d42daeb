"""Every step keeps one contract: see `solution.contracts.Step`."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from solution import checkpoint
from solution.compress.channels.group_penalty import GroupPenalty
from solution.compress.channels.step import PruneChannels
from solution.compress.cluster import Cluster
from solution.compress.decompose import Decompose
from solution.compress.fold_norms import FoldNorms
from solution.compress.prune_layers import PruneLayers
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Quantize
from solution.contracts import InputError, StructuralStep, plans_of
from solution.data.loaders import MEAN, STD
from solution.evaluate.cost import macs, params
from solution.models.shufflenet import ShuffleNet
from solution.registry import PLANS
from solution.runtime import ROOT
from solution.train.distillation import Assist, Distill
from solution.train.pretraining import Autoencode, Pretrain, Start
from solution.train.step import Train

STEPS = {
    "train": Train(epochs=1),
    "prune_layers by units": PruneLayers(units=(2, 1, 1), ranking="last"),
    "prune_layers by measured loss": PruneLayers(count=2),
    "prune_channels": PruneChannels(ratio=0.5),
    "prune_weights": PruneWeights(sparsity=0.6),
    "decompose by energy": Decompose(rank="energy", energy=0.5),
    "decompose to a budget": Decompose(macs="85%"),
    "cluster": Cluster(bits=3),
    "quantize": Quantize(scheme="int8"),
    "quantize inputs, static": Quantize(scheme="int8", activations=8),
    "quantize inputs, dynamic": Quantize(scheme="int8", activations=8, observer="dynamic"),
    "fold_norms": FoldNorms(),
    "group_penalty": GroupPenalty(epochs=1),
    "distill": Distill(epochs=1, teachers=("teacher",), live=True),
    "assist": Assist(epochs=1, teachers=("teacher",), live=True, assistant=ShuffleNet(units=(1, 1, 1), width=0.1)),
    "pretrain": Pretrain(epochs=1, path="colors"),
    "autoencode": Autoencode(epochs=1),
    "start": Start(path="earlier"),
}
NO_OPS = {
    "prune_layers to what there is": PruneLayers(units=(3, 3, 2)),
    "prune_channels of protected layers": PruneChannels(ratio=0.5, protect=("*",)),
    "prune_weights by less than one": PruneWeights(sparsity=1e-6),
    "decompose at ranks beyond the full one": Decompose(rank=10_000),
    "cluster what is too small for a codebook": Cluster(bits=8, layers=("*.dw_conv2",)),
}
COST = {
    "macs": macs,
    "params": lambda model, _: params(model),
    "bytes": lambda model, _: sum(tensor.nbytes for tensor in model.state_dict().values()),
}
STRUCTURAL = [name for name, step in STEPS.items() if isinstance(step, StructuralStep)]


@pytest.fixture
def toy(toy, small_net, photos, monkeypatch):
    """The toy task with a teacher to load, a copy of the small net, and with pictures to learn from first."""
    monkeypatch.chdir(photos.parent)
    header = checkpoint.header_of(small_net, classes=toy.classes, mean=MEAN, std=STD, size=32)
    return replace(toy, load=lambda path: (copy.deepcopy(small_net), header))


@pytest.fixture(scope="module")
def finished():
    """Models made so far: {name of the step: model}."""
    return {}


@pytest.fixture
def make(finished, small_net, toy):
    """Name of a step -> the model that it makes of the small net, made once for all tests."""

    def made(name):
        if name not in finished:
            finished[name] = STEPS[name](small_net, toy)
        return finished[name]

    return made


def state_bytes(model):
    # As bytes: numpy has no bfloat16.
    return {name: tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", STEPS)
def test_the_input_is_left_untouched(name, small_net, toy, finished):
    before, modules, training = state_bytes(small_net), str(small_net), small_net.training
    finished[name] = STEPS[name](small_net, toy)
    assert (state_bytes(small_net), str(small_net), small_net.training) == (before, modules, training)
    assert all(parameter.grad is None for parameter in small_net.parameters())


@pytest.mark.parametrize("name", STEPS)
def test_the_same_seed_gives_the_same_model(name, small_net, toy, make):
    assert state_bytes(STEPS[name](small_net, toy)) == state_bytes(make(name))


@pytest.mark.parametrize("name", STEPS)
def test_the_output_has_the_shape_of_before(name, small_net, toy, make):
    assert make(name)(toy.example).shape == small_net(toy.example).shape


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.currency])
def test_the_declared_currency_does_not_rise(name, small_net, toy, make):
    cost = COST[STEPS[name].currency]
    assert cost(make(name), toy.example) < cost(small_net, toy.example)


@pytest.mark.parametrize("name", STRUCTURAL)
def test_the_plan_survives_json_replays_to_the_same_net_and_is_remembered(name, small_net, toy):
    plan = STEPS[name].plan(small_net, toy)
    fields = json.loads(json.dumps(plan.to_fields()))
    again = PLANS[fields["kind"]].from_fields(fields)
    assert again == plan
    assert str(again) == str(plan)
    made = plan.apply(small_net)
    assert state_bytes(again.apply(small_net)) == state_bytes(made)
    assert plans_of(made) == (plan,)
    assert plans_of(small_net) == ()


def test_checkpoints_reload_to_the_same_bits_in_a_fresh_process(toy, make, tmp_path):
    for name in STEPS:
        model = make(name).eval()
        header = checkpoint.header_of(model, classes=toy.classes, mean=(0.5,) * 3, std=(0.5,) * 3, size=32)
        checkpoint.save(tmp_path / name / "model.safetensors", model, header)
        torch.save((toy.example, model(toy.example).detach()), tmp_path / name / "pair.pt")
    code = (
        "import sys, torch; from pathlib import Path; from solution import checkpoint;"
        "from solution.runtime import set_threads; set_threads()\n"
        "for folder in Path(sys.argv[1]).iterdir():\n"
        "    net, _ = checkpoint.load(folder / 'model.safetensors')\n"
        "    x, y = torch.load(folder / 'pair.pt', weights_only=True)\n"
        "    print(folder.name, 'reloads' if torch.equal(net(x), y) else 'differs')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == sorted(f"{name} reloads" for name in STEPS), done.stderr


@pytest.mark.parametrize("name", NO_OPS)
def test_a_step_that_would_do_nothing_is_refused(name, small_net, toy):
    with pytest.raises(InputError, match="nothing"):
        NO_OPS[name](small_net, toy)


def test_a_step_works_on_a_copy_with_its_own_history(small_net, toy):
    first = STEPS["prune_layers by units"](small_net, toy)
    second = PruneLayers(units=(1, 1, 1), ranking="last")(copy.deepcopy(first), replace(toy, seed=1))
    assert len(plans_of(second)) == 2
