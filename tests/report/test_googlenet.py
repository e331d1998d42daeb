import dataclasses

import pytest

from solution.contracts import Row
from solution.report.googlenet import googlenet_findings, googlenet_table
from solution.report.rows import write_rows
from solution.report.run_folder import read_run

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


def test_measured_lines_stand_below_the_published_ones(run):
    table = googlenet_table([run])
    assert [len(line) for line in table.rows] == [len(table.headings)] * 10
    cells = ("base", "1,000", "20.00", "15.00", "100", "50.00", "20.00", "50.00", "10.00", "9.50", "-", "1.0")
    assert table.rows[3] == cells
    assert table.rows[-1][7:10] == ("-", "-", "-")
    assert table.rows[0][5] == "22.96"


def test_several_seeds_give_mean_and_spread(run):
    other = dataclasses.replace(run, rows=tuple(dataclasses.replace(row, cpu_ms=10.5) for row in run.rows))
    assert googlenet_table([run, other]).rows[3][9] == "10.00 ± 0.71"


def test_the_findings_follow_from_the_rows(run):
    said = " ".join(googlenet_findings([run]))
    assert "36.0 % of the parameters" in said
    assert "1.25 times as fast" in said
    assert "a base of as many epochs: +0.50 points" in said
    assert "from scratch: -4.50; of the sparse net: -1.00" in said
    assert "Static int8: +0.10 points on the base, +0.00 on the pruned net" in said
