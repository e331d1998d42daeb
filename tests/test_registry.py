"""The registry names everything that there is, and reads steps as they are written in the shell."""

import dataclasses
import importlib
import inspect
import re

import pytest

from solution.compress.channels.step import PruneChannels
from solution.compress.prune_layers import PruneLayers
from solution.compress.prune_weights import PruneWeights
from solution.contracts import InputError, ModelSpec, Plan, Step
from solution.formats.base import Format
from solution.models.own_code import OwnNet
from solution.opening import NamedModel
from solution.registry import FORMATS, MODELS, PLANS, STEPS, step_from
from solution.runtime import ROOT


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("prune_channels ratio=0.5", PruneChannels(ratio=0.5)),
        ("prune_channels macs=4e6 ranking=global round_to=8", PruneChannels(macs="4e6", ranking="global", round_to=8)),
        ("""prune_channels ratio=0.5 limits="{'stem.*': 0.25}" """, PruneChannels(ratio=0.5, limits={"stem.*": 0.25})),
        ("prune_layers units=2,5,2", PruneLayers(units=(2, 5, 2))),
        ("prune_weights", PruneWeights()),
    ],
)
def test_a_step_and_its_settings_are_read(text, step):
    assert step_from(text) == step


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune_chanels ratio=0.5", r"no step 'prune_chanels' \(did you mean prune_channels\?\); there are: .*train"),
        ("", "no step ''.*there are: prune_channels"),
        ("prune_layers cuont=1", r"no field 'cuont' \(did you mean count\?\); it has: units, count, macs, ranking"),
        ("prune_layers 3", "takes FIELD=VALUE, got '3'; its fields are: units"),
        ("prune_layers count=many", r"prune_layers.count takes int \| None, got 'many'"),
        ("prune_layers count=0", "count must be at least 1, got 0"),
        ('prune_layers count="1', "cannot be read"),
    ],
)
def test_wrong_ones_are_explained(text, message):
    with pytest.raises(InputError, match=message):
        step_from(text)


def every_class():
    """All classes that any file of the package defines."""
    for file in sorted((ROOT / "solution").rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name not in ("solution.__main__",):
            module = importlib.import_module(name)
            yield from (kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == name)


def concrete(base):
    return {kind for kind in every_class() if issubclass(kind, base) and not inspect.isabstract(kind)}


def test_every_step_plan_and_format_is_in_the_registry():
    assert concrete(Step) == set(STEPS.values())
    assert concrete(Plan) == set(PLANS.values())
    assert concrete(Format) == {type(format) for format in FORMATS.values()}


def test_every_model_is_in_the_registry():
    models = {
        kind for kind in every_class() if dataclasses.is_dataclass(kind) and callable(getattr(kind, "build", None))
    }
    assert models - {ModelSpec, OwnNet, NamedModel} == set(MODELS.values())  # neither is built from what a file names


def test_names_are_those_by_which_things_call_themselves():
    assert all(kind.kind == name for name, kind in PLANS.items())
    assert all(format.name == name for name, format in FORMATS.items())
    assert all(re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).lower() == name for name, kind in STEPS.items())
