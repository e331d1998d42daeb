import dataclasses

import pytest

from solution.contracts import InputError, Row
from solution.report.tables import growing, side_by_side, spread_table
from solution.run_folder import read_rows, write_rows

ROW = Row(
    step="after",
    macs=1083210,
    macs_dispatched=871080,
    params=34422,
    bytes=170000,
    quality={"f1": 0.6149, "accuracy": 0.7},
    score=0.34305,
    latency_ms={"onnx": 0.2},
    seconds=90.0,
)


def test_rows_survive_the_disk(tmp_path):
    write_rows(tmp_path, [ROW, dataclasses.replace(ROW, step="other", score=None)])
    assert read_rows(tmp_path) == [ROW, dataclasses.replace(ROW, step="other", score=None)]
    assert (tmp_path / "rows.csv").read_text().splitlines()[0].count("quality.f1") == 1


def test_a_folder_without_rows_has_none(tmp_path):
    assert read_rows(tmp_path) == []


def test_the_growing_table_stays_aligned_and_has_the_columns_that_rows_fill():
    lines = growing([dataclasses.replace(ROW, step="before", score=None), ROW]).splitlines()
    assert len(set(map(len, lines))) == 1
    assert lines[0].split() == ["step", "MACs", "params", "KB", "F1", "accuracy", "score", "min"]
    assert lines[2].split()[-2] == "-"
    assert "0.6149" in lines[3]
    found = growing([dataclasses.replace(ROW, score=None, quality={"map50": 0.5, "map": 0.4}, sparsity=10.0)])
    assert found.splitlines()[0].split() == ["step", "MACs", "params", "KB", "mAP50-95", "mAP50", "zeros,", "%", "min"]


def test_side_by_side_says_the_difference():
    before = {"macs": 1688940, "params": 67062, "f1": 0.62, "score": 0.38}
    after = {"macs": 1083210, "params": 34422, "f1": 0.61, "score": 0.35}
    text = side_by_side({"before": before, "after": after})
    assert "-605,730 (-35.9%)" in text
    assert "-0.0100" in text
    assert "accuracy" not in text
    assert "Difference" not in side_by_side({"before": before})


def test_the_spread_over_seeds_is_mean_and_sample_deviation():
    runs = [[dataclasses.replace(ROW, seed=seed, quality={"f1": f1, "accuracy": 0.5})]
            for seed, f1 in enumerate((0.70, 0.72, 0.74))]  # fmt: skip
    text = spread_table(runs)
    assert "0.7200 ± 0.0200" in text
    assert "seeds 0, 1, 2" in text


def test_runs_of_other_recipes_do_not_mix():
    with pytest.raises(InputError, match="not of one recipe"):
        spread_table([[ROW], [dataclasses.replace(ROW, step="x")]])
