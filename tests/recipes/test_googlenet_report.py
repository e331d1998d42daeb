import dataclasses

import pytest

from solution.contracts import Row
from solution.recipes.googlenet import error_drawing, googlenet_findings, published_table, report, step_tables
from solution.report.sections import Findings
from solution.run_folder import read_run, write_rows

ROW = Row(
    step="base",
    macs=100,
    params=1000,
    bytes=20_000_000,
    packed_bytes=15_000_000,
    quality={"accuracy": 0.5, "top5": 0.8},
    latency_ms={"eager": 10.0},
    cpu_ms=9.5,
    memory_bytes=50_000_000,
    seconds=60,
)
ACCURACIES = {"base": 0.5, "longer": 0.52, "pruned": 0.515, "scratch": 0.47, "sparse": 0.53, "int8": 0.519}


@pytest.fixture
def run(tmp_path):
    rows = [
        dataclasses.replace(ROW, step=step, quality={"accuracy": accuracy, "top5": 0.8})
        for step, accuracy in (ACCURACIES | {"pruned_int8": 0.515}).items()
    ]
    rows[2] = dataclasses.replace(rows[2], params=640, latency_ms={"eager": 8.0})
    rows[-1] = dataclasses.replace(rows[-1], latency_ms={}, cpu_ms=None, memory_bytes=None)
    write_rows(tmp_path, rows)
    return read_run(tmp_path)


def test_every_step_has_its_line(run):
    sizes, times = step_tables([run])
    assert [len(line) for line in sizes.rows] == [len(sizes.headings)] * 7
    assert sizes.rows[0] == ("base", "1,000", "20.00", "15.00", "100", "50.00", "20.00", "1.0")
    assert times.headings == ("step", "ms per image", "CPU ms", "CUDA ms", "memory MB")
    assert times.rows[0] == ("base", "10.00", "9.50", "-", "50.00")
    assert times.rows[-1] == ("pruned_int8", "-", "-", "-", "-")


def test_the_report_of_its_recipe_holds_tables_findings_drawing_and_step_names(run):
    found = report({"seed0": run}, "tiny")
    assert len(found.tables) == 3
    assert list(found.drawings) == ["errors-tiny.svg"]
    assert "`scratch`: the same shape with new weights" in found.markdown()
    assert report({}) == Findings()


def test_published_figures_stand_beside_those_of_the_same_kind(run):
    table = published_table([run])
    assert table.headings[1:3] == ("base, published", "our base")
    lines = {line[0]: line[1:] for line in table.rows}
    assert lines["million parameters"] == ("6.4", "0.00", "6.4", "0.00", "4.09", "0.00")
    assert lines["top-1 error, %"] == ("22.96", "50.00", "27.5", "47.00", "25.85", "48.50")
    assert lines["ms per image"] == ("15.74", "10.00", "15.6", "10.00", "16.7", "8.00")
    assert lines["CUDA ms"][1] == "-"
    assert "CIFAR-100" in table.note


def test_the_drawing_shows_exported_forms_too(run):
    int8 = dataclasses.replace(
        run.rows[1],
        exported={"openvino": {"bytes": 2e7, "accuracy": 0.52}, "openvino int8": {"bytes": 5e6, "accuracy": 0.516}},
        latency_ms={"eager": 10.0, "openvino": 3.0, "openvino int8": 1.0},
    )
    shipped = dataclasses.replace(run, rows=(run.rows[0], int8, *run.rows[2:]))
    assert "longer, openvino int8 5.00 MB, 48.4" in error_drawing(shipped).alt
    said = " ".join(googlenet_findings([shipped]))
    assert (
        "int8 in openvino: +0.40 points of top-1 error against fp32 there, 3.00 times as fast, 4.00 times smaller"
        in said
    )


def test_several_seeds_give_mean_and_spread(run):
    other = dataclasses.replace(run, rows=tuple(dataclasses.replace(row, cpu_ms=10.5) for row in run.rows))
    assert step_tables([run, other])[1].rows[0][2] == "10.00 ± 0.71"


def test_the_findings_follow_from_the_rows(run):
    said = " ".join(googlenet_findings([run]))
    assert "36.0 % of the parameters" in said
    assert "1.25 times as fast" in said
    assert "a base of as many epochs: +0.50 points" in said
    assert "from scratch: -4.50; of the sparse net: -1.00" in said
    assert "Static int8: +0.10 points on the base, +0.00 on the pruned net" in said
