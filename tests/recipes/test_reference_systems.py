"""The reference systems' recipes: what they promise, and that they run, on nets and pictures that take seconds."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from solution import checkpoint, pipeline
from solution.compress.channels.step import PruneChannels
from solution.contracts import InputError, Recipe, Stage, StepContext
from solution.data.loaders import Data
from solution.evaluate.cost import params
from solution.evaluate.speed import Turns
from solution.export.packed import packed
from solution.models.cifar_resnet import CifarResNet
from solution.models.classifiers import Classifier
from solution.recipes.catalogue import FAMILIES, RECIPES, family_named, named
from solution.recipes.four_models import TECHNIQUES, epochs_drawing, grid_table, verdict
from solution.run_folder import RunFolder, read_rows, read_run
from solution.runtime import ROOT
from solution.search.session import Search
from solution.search.trainer import total_epochs
from solution.settings import settings_of, with_setting
from solution.train.distillation import Distill
from solution.train.step import Train


def shrunk(recipe, photos, thorough=False):
    """`recipe` with a tiny net, one epoch a training, pictures of 32 px."""
    recipe = dataclasses.replace(recipe, model=CifarResNet(depth=8, width=0.5), thorough=thorough, exports=())
    values = {"data.path": str(photos), "data.size": 32, "data.cache_size": 32, "data.batch_size": 16}
    values |= {"data.workers": 0, "data.most_images": 0, "data.calibration_images": 32}
    values |= {key: 1 for key in settings_of(recipe) if key.endswith(".epochs")}
    for key, value in values.items():
        recipe = with_setting(recipe, key, value)
    return recipe


def test_a_teacher_learns_on_published_weights_its_classifier_first(photos, tmp_path):
    model = Classifier(name="timm:lcnet_035")
    published = model.build(num_classes=5).state_dict()
    save_file(published, tmp_path / "published.safetensors")
    recipe = dataclasses.replace(shrunk(named("waste_teacher_efficientnet"), photos), model=model)
    recipe = with_setting(recipe, "model.weights", str(tmp_path / "published.safetensors"))
    recipe = with_setting(recipe, "teacher.first_size", 0)
    list(pipeline.run(recipe, tmp_path / "run", log=lambda _: None))
    probe, header = checkpoint.load(tmp_path / "run" / "before.safetensors")
    teacher, _ = checkpoint.load(tmp_path / "run" / "after.safetensors")
    assert (header.mean, header.std) == ((0.5,) * 3, (0.5,) * 3)
    assert torch.equal(probe.conv_stem.weight, published["conv_stem.weight"])
    assert not torch.equal(teacher.conv_stem.weight, probe.conv_stem.weight)


def test_googlenets_after_and_before_get_the_same_epochs_in_all():
    for name, epochs in (("googlenet_cifar100", 300), ("googlenet_cifar100_small", 11)):
        recipe = named(name)
        assert total_epochs(recipe) == epochs
        assert total_epochs(dataclasses.replace(recipe, after=recipe.before)) == epochs
        assert settings_of(recipe)["scratch.epochs"] == epochs


def test_a_fifth_of_googlenets_channels_is_over_a_third_of_its_parameters():
    net = named("googlenet_cifar100").model.build(num_classes=100).eval()
    smaller = PruneChannels(ratio=0.2)(net, StepContext(example=torch.zeros(1, 3, 64, 64)))
    assert params(net) == 5_702_404
    assert 0.34 < 1 - params(smaller) / params(net) < 0.38


def test_googlenets_recipe_runs_to_its_end(photos, tmp_path):
    recipe = shrunk(named("googlenet_cifar100_small"), photos)
    rows = {row.step: row for row in pipeline.run(recipe, tmp_path, log=lambda _: None)}
    assert list(rows) == [stage.name for stage in recipe.stages]
    assert rows["scratch"].params == rows["pruned"].params < rows["longer"].params
    assert rows["sparse"].sparsity == pytest.approx(36, abs=1)
    assert rows["pruned_int8"].bytes < rows["int8"].bytes < 0.5 * rows["base"].bytes


def two_nets(photos, **changes):
    """A net, its half, and a net of the half's shape with weights of its own."""
    cut, train = PruneChannels(ratio=0.5), Train(epochs=1)
    stages = (
        Stage(name="train", step=train),
        Stage(name="halve", step=cut),
        Stage(name="student", step=Distill(epochs=1, teachers=("train",), live=True), after="halve", fresh=True),
    )
    recipe = Recipe(
        name="two", data=Data(), model=CifarResNet(), stages=stages, before="train", after="student", **changes
    )
    return shrunk(recipe, photos, thorough=True)


@pytest.fixture(scope="module")
def thorough(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("thorough")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_TURNS", Turns(rounds=1, seconds=0.01, batches=(1,)))
        list(pipeline.run(two_nets(photos), out, log=lambda _: None))
    return out


def test_a_thorough_run_also_says_what_takes_time_to_measure(thorough):
    rows = {row.step: row for row in read_rows(thorough)}
    for name, row in rows.items():
        assert row.packed_bytes == (thorough / name / "model.packed").stat().st_size < row.bytes
        assert row.latency_ms["eager"] > 0
        assert row.cpu_ms > 0
        assert row.memory_bytes is None or row.memory_bytes > 0
    assert rows["halve"].packed_bytes < rows["train"].packed_bytes


def test_a_fresh_stage_has_the_shape_and_not_the_weights(thorough, photos):
    recipe = two_nets(photos)
    folder, loaders = RunFolder(path=thorough), pipeline.opener(recipe.data, 0)
    stage = pipeline.stage_runs(recipe, recipe.stages[2:3], folder, loaders, log=lambda _: None)[recipe.stages[2].name]
    halve, _ = checkpoint.load(thorough / "halve" / "model.safetensors")
    fresh, again = (stage.source().state_dict() for _ in range(2))
    assert {name: value.shape for name, value in fresh.items()} == {
        name: value.shape for name, value in halve.state_dict().items()
    }
    assert not torch.equal(fresh["conv1.weight"], halve.state_dict()["conv1.weight"])
    assert all(torch.equal(value, again[name]) for name, value in fresh.items())


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_missing_teacher_is_named_before_anything_is_trained(tmp_path, photos, monkeypatch, unfinished):
    monkeypatch.chdir(tmp_path)
    if unfinished:
        (tmp_path / "runs" / "teacher").mkdir(parents=True)
    recipe = dataclasses.replace(named("waste_distilled"), data=Data(path=str(photos)))
    with pytest.raises(
        InputError, match=r"distilled needs the net runs/teacher, which .*--set distilled.teachers=PATH"
    ):
        list(pipeline.run(recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="distilled needs the net runs/teacher"):
        Search(recipe=dataclasses.replace(recipe, data=Data(path=str(photos))), space={}, folder=tmp_path / "search")


def test_four_bits_leave_six_tenths_of_a_byte_for_a_parameter_of_the_committed_after():
    recipe, context = named("waste_four_bits"), StepContext(example=torch.zeros(1, 3, 48, 48))
    net, _ = checkpoint.load(ROOT / recipe.stage("start").step.path)
    whole, schemes = params(net), {}
    for name in ("eight", "four", "after"):
        step = recipe.stage(name).step
        plan = step.plan(net, context)
        schemes |= getattr(plan, "schemes", {})
        net = step.apply(plan, net, context)
    convolutions = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    eight = {name for name, scheme in schemes.items() if scheme == "int8"}
    assert eight == {name for name, module in convolutions.items() if module.kernel_size == (3, 3)}
    assert schemes.keys() == convolutions.keys()
    assert len(packed.pack(net.state_dict(), {})) < 0.6 * whole


def test_a_fresh_stage_needs_one_that_gives_its_shape():
    stage = Stage(name="a", step=Train(), fresh=True)
    with pytest.raises(InputError, match="a is fresh, but no earlier stage gives its shape"):
        Recipe(name="x", data=Data(), model=CifarResNet(), stages=(stage,), before="a", after="a")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_a_cell_for_every_net_and_data_set_and_rows_that_the_report_knows(name):
    cells = family_named(name, None)
    models = ("densenet121", "resnet50", "resnet34", "vgg16")
    assert list(cells) == [f"{data}/{model}" for data in ("cifar10", "svhn") for model in models]
    assert list(family_named(name, "../shared/mnist.npz")) == [f"mnist/{model}" for model in models]
    assert {recipe.data.path for recipe in family_named(name, "x/mnist.npz").values()} == {"x/mnist.npz"}
    for recipe in cells.values():
        assert recipe.name == name
        assert {stage.name for stage in recipe.stages} >= TECHNIQUES.keys()


def test_a_family_is_no_recipe_and_a_recipe_no_family():
    with pytest.raises(InputError, match="four_models is a family of recipes"):
        named("four_models")
    assert all(family_named(name, None) == {} for name in RECIPES)


def test_a_cell_runs_to_its_end_and_is_told(photos, tmp_path):
    recipe = shrunk(family_named("four_models_small", None)["svhn/resnet34"], photos)
    rows = {row.step: row for row in pipeline.run(recipe, tmp_path / "tiny", log=lambda _: None)}
    assert rows["bits8"].bytes < rows["bits16"].bytes < rows["train"].bytes
    assert rows["student"].params == rows["distilled"].params < 0.5 * rows["train"].params
    runs = {"tiny": read_run(tmp_path / "tiny")}
    assert [line[1] for line in grid_table(runs).rows] == list(TECHNIQUES.values())
    assert len(verdict(runs).rows) == len(TECHNIQUES)
    drawing = epochs_drawing(runs)
    assert "tiny: as trained" in drawing.alt
    assert ">student, distilled<" in drawing.svg
