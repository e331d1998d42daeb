"""The detector's recipe: what it promises, and that it runs to its end on pictures of 64 px."""

import dataclasses
import math
from importlib.util import find_spec

import pytest
import torch
from scenes import write_scenes

from solution import pipeline
from solution.contracts import DETECTION, InputError, Recipe, Stage, StepContext
from solution.evaluate.detect import detect
from solution.evaluate.speed import Turns
from solution.export import files
from solution.export.parity import COMPARED
from solution.formats.openvino import after_weights
from solution.models.ssdlite import SsdLite
from solution.recipes import detector
from solution.recipes.catalogue import named
from solution.recipes.detector import (
    cost_drawing,
    detector_findings,
    detector_tables,
    pruning_drawing,
    published_table,
)
from solution.run_folder import read_rows, read_run
from solution.settings import settings_of, with_setting
from solution.train.pretraining import Unchanged

needs_ultralytics = pytest.mark.skipif(find_spec("ultralytics") is None, reason="extra detection is not installed")
STAGES = ("original", "float16", "local_10", "clustered", "cut", "cut_tuned", "smaller")
EXPORTS = ("onnxruntime", "openvino", "openvino int8")


def shrunk(recipe, path, exports=("onnxruntime",)):
    """`recipe` on small pictures, with one epoch a training and one net of each kind."""
    stages = tuple(
        dataclasses.replace(stage, size=stage.size and 32) for stage in recipe.stages if stage.name in STAGES
    )
    recipe = dataclasses.replace(recipe, stages=stages, exports=exports)
    values = {"data.path": str(path), "data.size": 64, "data.batch_size": 4, "data.calibration_images": 2}
    values |= {key: 1 for key in settings_of(recipe) if key.endswith(".epochs")}
    for key, value in values.items():
        recipe = with_setting(recipe, key, value)
    return recipe


@pytest.fixture(scope="module")
def scenes_tar(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "shapes.tar")


@pytest.fixture(scope="module")
def finished(scenes_tar, tmp_path_factory):
    """The folder of a whole run of the SSDLite's recipe."""
    out = tmp_path_factory.mktemp("detector")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_TURNS", Turns(rounds=1, seconds=0.01, batches=(1,)))
        list(pipeline.run(shrunk(named("detector_ssdlite"), scenes_tar), out, log=lambda _: None))
    return out


@pytest.mark.slow
def test_rows_of_a_run(finished):
    rows = {row.step: row for row in read_rows(finished)}
    assert list(rows) == list(STAGES)
    assert all(set(row.quality) == {"precision", "recall", "map50", "map"} for row in rows.values())
    assert rows["float16"].bytes < 0.6 * rows["original"].bytes
    assert rows["clustered"].bytes < 0.6 * rows["original"].bytes
    assert rows["clustered"].packed_bytes < 0.35 * rows["original"].bytes
    assert rows["local_10"].sparsity == pytest.approx(10, abs=0.5)
    assert rows["cut_tuned"].macs == rows["cut"].macs < 0.9 * rows["original"].macs
    assert rows["smaller"].macs < 0.5 * rows["original"].macs
    for step in ("original", "smaller"):
        assert set(rows[step].exported) == {"onnxruntime"}
        assert set(rows[step].latency_ms) == {"eager", "onnxruntime"}


@pytest.mark.slow
def test_files_say_what_their_rows_say(finished, scenes_tar):
    rows = {row.step: row for row in read_rows(finished)}
    val = with_setting(shrunk(named("detector_ssdlite"), scenes_tar), "data.size", 64).data.open().val
    for name in ("original", "clustered"):
        exported = files.open_file(finished / name / "model.packed", task=DETECTION)
        assert detect(exported, val).quality() == pytest.approx(rows[name].quality)
    exported = files.open_file(finished / "original" / "model.onnx", task=DETECTION)
    assert detect(exported, val).quality() == pytest.approx(
        {name: rows["original"].exported["onnxruntime"][name] for name in rows["original"].quality}
    )
    with pytest.raises(InputError, match=r"(is a file|is a net) for detection, not for classification|another task"):
        files.open_file(finished / "original" / "model.onnx")


@pytest.mark.slow
def test_int8_spares_what_follows_the_last_layers_and_is_smaller(scenes_tar, tmp_path, monkeypatch):
    import openvino

    # A net that has hardly learned may fail the proof.
    monkeypatch.setitem(COMPARED[DETECTION].errors, "int8", math.inf)
    monkeypatch.setitem(COMPARED[DETECTION].task.most_lost, "int8", 1.0)
    recipe = shrunk(named("detector_ssdlite"), scenes_tar, EXPORTS[1:])
    recipe = dataclasses.replace(recipe, stages=recipe.stages[:1], after="original", thorough=False)
    list(pipeline.run(recipe, tmp_path, log=lambda _: None))
    model = openvino.Core().read_model(tmp_path / "original" / "model.xml")
    kinds = {op.get_friendly_name(): op.get_type_name() for op in model.get_ops()}
    spared = [kinds[name] for name in after_weights(model)]
    assert "Softmax" in spared
    assert not {"Convolution", "GroupConvolution"} & set(spared)
    exported = read_rows(tmp_path)[0].exported
    assert exported["openvino int8"]["bytes"] < 0.7 * exported["openvino"]["bytes"]


@pytest.mark.slow
def test_is_told_beside_what_was_published(finished):
    run = read_run(finished)
    for table in detector_tables(run):
        assert [cells[0] for cells in table.rows][:2] == ["original", "original, onnxruntime"]
        assert len({len(cells) for cells in table.rows} | {len(table.headings)}) == 1
    beside = published_table(run)
    assert [cells[:3] for cells in beside.rows if cells[0] == "ONNX"] == [("ONNX", "original, onnxruntime", "0.452")]
    assert len({len(cells) for cells in beside.rows} | {len(beside.headings)}) == 1
    assert any(text.startswith("The fastest that loses at most 0.01 is") for text in detector_findings(run))
    assert "local: " in pruning_drawing(run).alt
    assert "smaller, onnxruntime" in cost_drawing(run).alt


def test_pruning_counts_from_what_is_not_zero_yet():
    net = SsdLite().build(2)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 4:
                parameter[: max(1, len(parameter) // 4)] = 0
    context = StepContext(example=torch.zeros(1, 3, 64, 64))
    before, after = named("detector_ssdlite").stage("global_10").step.plan(net, context).total
    assert before > 20
    assert after == pytest.approx(before + 0.1 * (100 - before), abs=0.5)


@needs_ultralytics
def test_a_net_that_did_not_learn_here_is_judged_on_train_too(scenes_tar, tmp_path):
    recipe = shrunk(named("detector_yolov8n"), scenes_tar)
    recipe = with_setting(with_setting(recipe, "model.weights", ""), "data.most_images", 2)
    stages = (Stage(name="original", step=Unchanged()), *(s for s in recipe.stages if s.name == "cut_tuned"))
    recipe = dataclasses.replace(recipe, stages=stages, after="cut_tuned", thorough=False, exports=())
    first, second = pipeline.run(recipe, tmp_path, log=lambda _: None)
    assert "train_map" in first.quality
    assert "train_map" not in second.quality


def test_the_recipes_hold_every_technique():
    for recipe in (detector.recipe(), detector.ssdlite(), detector.ssdlite_coco()):
        assert isinstance(recipe, Recipe)
        names = [stage.name for stage in recipe.stages]
        assert {*STAGES, "int8", "global_5", "local_5"} <= set(names)
        assert recipe.exports == EXPORTS
        assert recipe.source("cut_tuned") == "cut"
        assert recipe.source("smaller") == recipe.before
        assert recipe.size_of(recipe.after) <= 0.8 * recipe.data.size
