"""Exported forms in the rows of a run: made at its end, judged, timed in turns."""

import dataclasses
import json
import shutil

import pytest

from solution import pipeline
from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, Recipe, Stage
from solution.data.loaders import Data
from solution.evaluate.classify import classify
from solution.evaluate.speed import Turns
from solution.export import files, shipping
from solution.models.shufflenet import ShuffleNet
from solution.report.page import page
from solution.report.sections import RecipeInfo
from solution.report.tables import shipped, side_by_side
from solution.run_folder import read_rows, read_run, write_rows
from solution.train.step import Train

pytestmark = pytest.mark.long

FORMS = ("onnxruntime", "openvino fp16")


@pytest.fixture(scope="module")
def recipe(photos):
    return Recipe(
        name="colors",
        data=Data(path=str(photos), size=32, batch_size=16, workers=0),
        model=ShuffleNet(units=(2, 2, 1), width=0.1),
        stages=(
            Stage(name="train", step=Train(epochs=3, lr=0.05, warmup_epochs=0)),
            Stage(name="cut", step=PruneLayers(units=(1, 2, 1))),
            Stage(name="after", step=Train(epochs=1)),
        ),
        before="train",
        after="after",
        exports=FORMS,
    )


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """(folder, what was said) of a run that first had no exports, and was then resumed with some."""
    out, said = tmp_path_factory.mktemp("runs") / "shipped", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_TURNS", Turns(rounds=1, seconds=0.01, batches=(1,)))
        rows = list(pipeline.run(dataclasses.replace(recipe, exports=()), out, log=said.append))
        assert all((row.packed_bytes, row.exported, row.latency_ms) == (None, {}, {}) for row in rows)
        assert read_rows(out) == rows
        assert list(pipeline.run(recipe, out, resume=True, log=said.append)) == rows
    return out, said


@pytest.fixture(scope="module")
def rows(finished):
    return {row.step: row for row in read_rows(finished[0])}


def test_before_and_after_say_what_their_exported_files_take_and_know(finished, recipe, rows):
    out, _ = finished
    val = recipe.data.open(splits=("val",)).val
    for step in ("train", "after"):
        row = rows[step]
        assert row.packed_bytes == (out / step / "model.packed").stat().st_size < row.bytes
        assert list(row.exported) == list(FORMS)
        assert list(row.latency_ms) == ["eager", *FORMS]
        assert all(ms > 0 for ms in row.latency_ms.values())
        for name, file in zip(FORMS, ("model.onnx", "model.fp16.xml"), strict=True):
            exported = files.open_file(out / step / file)
            said = dict(row.exported[name])
            assert said.pop("memory_bytes") > 1e6
            assert said == {"bytes": exported.num_bytes, **classify(exported, val).quality()}
    assert (rows["cut"].packed_bytes, rows["cut"].exported, rows["cut"].latency_ms) == (None, {}, {})


def test_nothing_is_made_twice(finished, recipe, rows, monkeypatch):
    monkeypatch.setattr(shipping, "make_proven", None)
    monkeypatch.setattr(pipeline, "measure", None)
    again = list(pipeline.run(recipe, finished[0], resume=True, log=lambda _: None))
    assert again == read_rows(finished[0]) == list(rows.values())


def test_tables_have_a_place_for_every_form(rows):
    text = side_by_side({role: {**vars(rows[role]), **rows[role].quality} for role in ("train", "after")})
    lines = text.split("\n\n")[1].splitlines()
    assert lines[0].split("  ")[0] == "form"
    for form in ("checkpoint, PyTorch eager", "packed", *FORMS):
        assert sum(line.startswith(f"{form}  ") for line in lines) == 2
    assert len({len(line) for line in lines}) == 1
    table = shipped([list(rows.values())])
    assert table.headings == ("step", "form", "bytes", "macro F1", "accuracy", "ms of one image", "memory MB")
    forms = ("checkpoint, eager", "packed", *FORMS)
    assert [line[:2] for line in table.rows] == [(role, form) for role in ("train", "after") for form in forms]
    assert all("-" not in line for line in table.rows if line[1] != "packed")


def test_a_form_that_fails_its_proof_is_left_out(finished, recipe, monkeypatch):
    def fails(*_):
        raise InputError("the onnx file in int8 fails parity (macro F1)")

    monkeypatch.setattr(shipping, "make_proven", fails)
    loaders = recipe.data.open(splits=("val",))
    path = finished[0] / "train" / "model.safetensors"
    with pytest.raises(InputError, match="fails parity"):
        shipping.ship(path, "onnxruntime int8", loaders, print)
    assert not list(path.parent.glob("*.int8.*"))


def test_a_form_that_was_left_out_has_its_reason_in_the_row_and_on_the_page(finished, recipe, tmp_path, monkeypatch):
    def fails(path, form, *_):
        if form == "openvino fp16" and path.parent.name == "after":
            raise InputError("the openvino file fails parity (macro F1)")
        return {"bytes": 1}

    out, said = tmp_path / "run", []
    shutil.copytree(finished[0], out)
    rows = [dataclasses.replace(row, exported={}, latency_ms={}) for row in read_rows(out)]
    write_rows(out, rows)
    monkeypatch.setattr(shipping, "ship", fails)
    monkeypatch.setattr(pipeline, "measure", lambda cases, *_, **__: [])
    list(pipeline.run(recipe, out, resume=True, log=said.append))
    assert "openvino fp16 is left out: the openvino file fails parity (macro F1)" in said
    after = {row.step: row for row in read_rows(out)}["after"]
    assert after.left_out == {"openvino fp16": "the openvino file fails parity (macro F1)"}
    assert "openvino fp16" not in after.exported
    text = page([read_run(out)], None, lambda _: RecipeInfo())
    assert "After has no openvino fp16: the openvino file fails parity (macro F1)" in text
    assert "Before has no openvino fp16" not in text


def test_int8_needs_a_dev_split(finished, recipe):
    data = dataclasses.replace(recipe.data, use_all_train=True)
    loaders = data.open(splits=("val", "calibration"))
    with pytest.raises(InputError, match="int8 decides on the dev split"):
        shipping.ship(finished[0] / "train" / "model.safetensors", "onnxruntime int8", loaders, print)


def test_a_missing_runtime_is_left_out_with_a_word_and_a_wrong_name_refused(recipe, tmp_path, monkeypatch):
    said = []
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert shipping.missing(("onnxruntime", "openvino int8")) == {
        "openvino int8": 'the runtime openvino needs openvino, which is not here: pip install -e ".[runtimes]"'
    }
    for name in ("warp", "openvino int3", "eager"):
        with pytest.raises(InputError, match=f"such as 'openvino int8'; got '{name}'"):
            next(pipeline.run(dataclasses.replace(recipe, exports=(name,)), tmp_path / "run", log=said.append))
    assert not (tmp_path / "run").exists()


def test_rows_from_before_there_were_exports_are_read(finished, tmp_path):
    old = json.loads((finished[0] / "rows.json").read_text())
    for row in old:
        del row["exported"]
    (tmp_path / "rows.json").write_text(json.dumps(old))
    assert [row.exported for row in read_rows(tmp_path)] == [{}, {}, {}]
