"""A run that goes on from another run's net."""

import dataclasses

import pytest
import torch

from solution import checkpoint, pipeline
from solution.compress.channels.step import PruneChannels
from solution.contracts import InputError, Recipe, Stage, plans_of
from solution.data.loaders import MEAN, STD, Data
from solution.models.shufflenet import ShuffleNet
from solution.train.pretraining import Start


@pytest.fixture
def recipe_from(photos):
    """A recipe that starts at a path and does nothing else."""

    def made(path):
        stage = Stage(name="start", step=Start(path=str(path)))
        data = Data(path=str(photos), size=32, batch_size=16, workers=0)
        return Recipe(name="on", data=data, model=ShuffleNet(), stages=(stage,), before="start", after="start")

    return made


@pytest.fixture
def earlier(small_net, toy, tmp_path):
    """A finished run's folder whose After is a cut net, and that net."""
    cut = PruneChannels(ratio=0.5)(small_net, toy)
    header = checkpoint.header_of(cut, classes=("blue", "green", "red"), mean=MEAN, std=STD, size=32)
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "after.safetensors", cut, header)
    return tmp_path / "run", cut


def test_a_cut_net_goes_on_and_reloads_from_the_new_run(earlier, recipe_from, toy, tmp_path):
    folder, cut = earlier
    (row,) = pipeline.run(recipe_from(folder), tmp_path / "on", log=lambda _: None)
    net, _ = checkpoint.load(tmp_path / "on" / "after.safetensors")
    assert torch.equal(net.eval()(toy.example), cut.eval()(toy.example))
    assert plans_of(net) == plans_of(cut)
    assert row.params == sum(parameter.numel() for parameter in cut.parameters())


def test_a_missing_start_is_named_and_nothing_is_written(recipe_from, tmp_path):
    with pytest.raises(InputError, match=r"start needs the net .*nowhere, which is no .*--set start.path=PATH"):
        list(pipeline.run(recipe_from(tmp_path / "nowhere"), tmp_path / "on"))
    assert not (tmp_path / "on").exists()


def test_a_net_of_other_classes_is_no_start(earlier, toy):
    folder, cut = earlier
    header = checkpoint.header_of(cut, classes=("a", "b", "c"), mean=MEAN, std=STD, size=32)
    context = dataclasses.replace(toy, load=lambda path: (cut, header))
    with pytest.raises(
        InputError, match=r"after\.safetensors knows the classes a, b, c; the data have red, green, blue"
    ):
        Start(path=str(folder))(cut, context)
