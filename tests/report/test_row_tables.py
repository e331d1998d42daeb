import dataclasses
import json

import pytest

from solution.contracts import InputError, Row
from solution.report.page import figures
from solution.report.sections import command
from solution.report.tables import Table, ablation_table, compared, forms, read_ablation, shipped, spread
from solution.run_folder import machines, read_run, write_rows

ROW = Row(
    step="after", macs=1000, params=100, bytes=400, quality={"f1": 0.7}, score=0.3, seconds=60.0, hardware="a CPU"
)


def write_run(folder, rows, **said):
    write_rows(folder, rows)
    (folder / "recipe.json").write_text(json.dumps({"name": "waste", "seed": 3, "settings": {}, **said}))
    return folder


def test_markdown_has_a_rule_and_a_note():
    table = Table(headings=("", "a"), rows=(("b", "1"),), note="Said.")
    assert table.markdown() == "|  | a |\n|---|---|\n| b | 1 |\n\nSaid."


def test_a_figure_that_one_model_lacks_has_no_difference():
    table = compared({"before": {"macs": 10, "f1": 0.5}, "after": {"macs": 5}})
    assert table.rows == (("MACs", "10", "5", "-5 (-50.0%)"), ("macro F1", "0.5000", "-", ""))


def test_every_form_is_a_line_of_its_own_with_means_over_runs(tmp_path):
    exported = {"openvino int8": {"bytes": 3000, "f1": 0.69}}
    before = dataclasses.replace(ROW, step="before", packed_bytes=300, latency_ms={"eager": 4.0})
    after = dataclasses.replace(
        before, step="after", latency_ms={"eager": 2.0, "openvino int8": 0.5}, exported=exported
    )
    other = dataclasses.replace(after, latency_ms={"eager": 3.0, "openvino int8": 0.7}, packed_bytes=None)
    runs = [read_run(write_run(tmp_path / name, [before, row])) for name, row in (("a", after), ("b", other))]
    models = {role: figures(runs, role) for role in ("before", "after")}
    assert compared(models).rows[3:] == (
        ("macro F1", "0.7000", "0.7000", "0.0000"),
        ("score (lower is better)", "0.3000", "0.3000", "0.0000"),
    )
    table = forms(models)
    assert table.headings == ("form", "net", "bytes", "ms of one image", "macro F1")
    assert table.rows == (
        ("checkpoint, PyTorch eager", "Before", "400", "4", "0.7000"),
        ("checkpoint, PyTorch eager", "After", "400", "2.5", "0.7000"),
        ("packed", "Before", "300", "-", "-"),
        ("openvino int8", "After", "3,000", "0.6", "0.6900"),
    )
    assert forms({"before": {"macs": 1, "bytes": 4}}) is None


def test_int8_that_does_not_pay_is_named():
    exported = {"onnxruntime": {"bytes": 9000}, "onnxruntime int8": {"bytes": 3000}, "openvino int8": {"bytes": 3000}}
    times = {"eager": 2.0, "onnxruntime": 0.5, "onnxruntime int8": 0.6, "openvino": 0.5, "openvino int8": 0.4}
    row = dataclasses.replace(ROW, latency_ms=times, exported=exported)
    said = "after in onnxruntime: int8 does not pay there, it is 20% slower than fp32."
    assert shipped([[row]]).note.endswith(f"one thread. {said}")
    assert forms({"after": {"bytes": 1, "latency_ms": times, "exported": exported}}).note == said.capitalize()
    paid = dataclasses.replace(row, latency_ms={"eager": 2.0, "onnxruntime": 0.6, "onnxruntime int8": 0.5})
    assert shipped([[paid]]).note.endswith("one thread.")


def test_columns_are_those_that_some_row_fills():
    row = dataclasses.replace(ROW, score=None, quality={"map50": 0.4}, latency_ms={"onnx": 0.254}, sparsity=9.98)
    steps, measured = spread([[row]])
    assert steps.headings == ("step", "MACs", "parameters", "bytes", "zeros, %", "mAP50", "minutes")
    assert steps.rows == (("after", "1,000", "100", "400", "10.0", "0.4000", "1.0"),)
    assert (measured.headings, measured.rows) == (("step", "ms, onnx"), (("after", "0.254"),))


def test_forms_that_ship_have_a_table_of_their_own():
    exported = {"openvino int8": {"bytes": 3000, "f1": 0.69, "accuracy": 0.7}}
    latency_ms = {"eager": 2.0, "openvino int8": 0.5}
    row = dataclasses.replace(
        ROW, quality={"f1": 0.7, "accuracy": 0.71}, packed_bytes=300, latency_ms=latency_ms, exported=exported
    )
    plain = dataclasses.replace(ROW, quality=row.quality, step="train")
    assert shipped([[plain]]) is None
    table = shipped([[plain, row]])
    assert table.headings == ("step", "form", "bytes", "macro F1", "accuracy", "ms of one image")
    assert table.rows == (
        ("after", "checkpoint, eager", "400", "0.7000", "0.7100", "2"),
        ("after", "packed", "300", "-", "-", "-"),
        ("after", "openvino int8", "3,000", "0.6900", "0.7000", "0.5"),
    )
    steps, files = spread([[plain, row]])
    assert files == table
    assert not any("openvino" in heading or "ms" in heading for heading in steps.headings)


def test_a_run_says_what_it_compares(tmp_path):
    rows = [dataclasses.replace(ROW, step=name) for name in ("train", "before", "prune", "last")]
    run = read_run(write_run(tmp_path, rows, settings={"data.path": "x/photos.tar.gz"}))
    assert run.compared == ("before", "last")
    assert (run.recipe, run.seed, run.data()) == ("waste", 3, "photos")
    assert (run.histories(), run.plans(), run.checkpoints()) == ({}, {}, {})


def test_a_folder_without_rows_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"holds no rows\.json"):
        read_run(tmp_path)


def test_damaged_settings_are_named(tmp_path):
    (write_run(tmp_path, [ROW]) / "recipe.json").write_text('{"name": ')
    with pytest.raises(InputError, match=r"recipe\.json is damaged"):
        read_run(tmp_path)


def test_the_command_names_what_differs_from_the_recipe(tmp_path):
    settings = {
        "data.path": "my photos.tar",
        "model.units": [2, 5, 2],
        "train.lr": 0.1,
        "train.old": 1,
        "train.keep": "last",
    }
    run = read_run(write_run(tmp_path, [ROW], settings=settings))
    defaults = {"data.path": None, "model.units": (2, 5, 2), "train.lr": 0.2, "train.keep": "best"}
    assert command(run, defaults) == (
        "python -m solution run waste --data 'my photos.tar' --seed 3 --set train.lr=0.1 --set train.keep=last"
        "  # at its commit also train.old=1"
    )
    assert command(run, {}) == "python -m solution run waste --data 'my photos.tar' --seed 3"


def ablation(folder, scores):
    for switch, some in scores.items():
        for seed, score in enumerate(some):
            write_rows(folder / switch / f"seed{seed}", [ROW, dataclasses.replace(ROW, seed=seed, score=score)])
    return read_ablation(folder)


def test_an_ablation_tells_help_from_noise(tmp_path):
    switches = ablation(tmp_path, {"kd": (0.20, 0.21), "mixup": (0.31, 0.29), "base": (0.30, 0.31), "ema": (0.1,)})
    table = ablation_table(switches)
    assert [cells[0] for cells in table.rows] == ["base", "ema", "kd", "mixup"]
    found = {cells[0]: dict(zip(table.headings, cells, strict=True)) for cells in table.rows}
    assert found["kd"]["score against base"] == "-0.1000"
    assert [found[name]["verdict"] for name in ("base", "ema", "kd", "mixup")] == [
        "",
        "one seed",
        "helps",
        "no difference",
    ]
    assert found["kd"]["minutes"] == "2.0"


def test_an_ablation_needs_its_base(tmp_path):
    assert read_ablation(tmp_path / "none") == {}
    with pytest.raises(InputError, match="no switch called 'base' to compare kd with"):
        ablation(tmp_path, {"kd": (0.2,)})


def test_machines_name_where_times_were_taken_when_that_is_elsewhere():
    here = dataclasses.replace(ROW, timed_on="a CPU")
    there = dataclasses.replace(here, hardware="a GPU")
    assert machines([there]) == "a GPU; times: a CPU"
    assert machines([here, ROW]) == "a CPU"
