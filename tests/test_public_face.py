"""`import solution as fw`: about thirty names, imported when they are used."""

import ast
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

import solution as fw
from solution.runtime import ROOT


def test_all_names_are_there_and_listed_once():
    assert sorted(fw.__all__) == sorted(set(fw.__all__))
    assert len(fw.__all__) <= 40
    for name in fw.__all__:
        assert getattr(fw, name) is not None
    assert set(fw.__all__) <= set(dir(fw))
    with pytest.raises(AttributeError, match="no attribute 'PruneChanels'"):
        fw.PruneChanels  # noqa: B018


def test_an_editor_sees_every_name():
    """A star import takes what a module defines or imports "as" itself: `solution` takes `api` so for type checkers."""
    tree = ast.parse((ROOT / "solution" / "api.py").read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert set(fw.__all__) == defined | imported


def test_every_step_is_public():
    from solution.registry import STEPS

    assert {step.__name__ for step in STEPS.values()} <= set(fw.__all__)


def test_the_package_loads_nothing_heavy_until_a_name_is_used():
    code = "import sys, solution; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_verbs_can_be_called_although_packages_have_their_names():

    assert callable(fw.export)
    assert callable(fw.evaluate)
    assert fw.evaluate(nn.Conv2d(3, 4, 1, bias=False), example=torch.zeros(1, 3, 5, 5))["params"] == 12


@pytest.mark.parametrize("form", ["tensor", "context"])
def test_an_example_stands_for_a_context(form):
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)), torch.zeros(1, 3, 9, 9)
    example = {"tensor": x, "context": fw.StepContext(example=x)}[form]
    step = fw.PruneChannels(ratio=0.5)
    assert step.plan(net, example) == step.plan(net, x)
    assert step(net, example)[0].out_channels == 4


def test_a_plan_survives_its_file(tmp_path):
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)), torch.zeros(1, 3, 9, 9)
    plan = fw.PruneChannels(ratio=0.5).plan(net, x)
    fw.save_plan(plan, tmp_path / "plan.json")
    assert fw.load_plan(tmp_path / "plan.json") == plan
    for text in ("", "7", "[]", '{"kind": "nothing"}', '{"kind": "prune_channels"}', "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(fw.InputError, match="holds no plan"):
            fw.load_plan(tmp_path / "bad.json")


@pytest.mark.long
def test_a_chain_on_a_net_of_ones_own_reloads_bit_for_bit_in_a_fresh_process(tmp_path):
    (tmp_path / "my_net.py").write_text(inspect.getsource(_code))
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from my_net import _code; exec_net = _code()\n"
    make = script + (
        "import torch, solution as fw\n"
        "torch.manual_seed(0); net = exec_net.eval(); x = torch.randn(2, 3, 16, 16)\n"
        "for step in (fw.PruneChannels(ratio=0.5), fw.FoldNorms(), fw.Decompose(rank='energy', energy=0.3),\n"
        "             fw.Cluster(bits=3), fw.Quantize(scheme='int8')):\n"
        "    net = step(net, x)\n"
        f"fw.save(net, {str(tmp_path / 'net.safetensors')!r}); fw.save(net, {str(tmp_path / 'net.packed')!r})\n"
        f"torch.save((x, net(x)), {str(tmp_path / 'said.pt')!r})\n"
    )
    check = script + (
        "import torch, solution as fw\n"
        f"x, y = torch.load({str(tmp_path / 'said.pt')!r}, weights_only=True)\n"
        f"for name in ('net.safetensors', 'net.packed'):\n"
        f"    again = fw.load({str(tmp_path)!r} + '/' + name, into=_code())\n"
        "    assert torch.equal(again(x), y), name\n"
        "    assert len(fw.plans_of(again)) == 5\n"
    )
    for code in (make, check):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr


def _code():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
