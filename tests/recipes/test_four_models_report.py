import dataclasses
import json

import pytest

from solution.contracts import Row
from solution.recipes.four_models import TECHNIQUES, epochs_drawing, grid_table, report, verdict
from solution.report.results import pictures, results
from solution.report.sections import RecipeInfo
from solution.run_folder import read_run, write_rows

ROW = Row(
    step="train",
    macs=1_000_000,
    params=10,
    bytes=9_000_000,
    packed_bytes=8_000_000,
    quality={"accuracy": 0.9},
    latency_ms={"eager": 4.0},
    seconds=60.0,
)
CHANGES = {
    "pruned": {"macs": 500_000, "packed_bytes": 4_000_000, "latency_ms": {"eager": 2.5}, "quality": {"accuracy": 0.8}},
    "bits8": {"packed_bytes": 2_000_000},
    "bits1": {"packed_bytes": 100_000, "quality": {"accuracy": 0.1}},
    "student": {"macs": 250_000, "latency_ms": {"eager": 3.0}, "quality": {"accuracy": 0.5}},
}


@pytest.fixture
def runs(tmp_path):
    """Two cells, and a run that is none."""
    steps = ["train", "prune", *list(TECHNIQUES)[1:]]
    rows = [dataclasses.replace(ROW, step=step, **CHANGES.get(step, {})) for step in steps]
    for cell in ("one", "two"):
        write_rows(tmp_path / cell, rows)
        (tmp_path / cell / "train").mkdir()
        (tmp_path / cell / "train" / "history.csv").write_text("epoch,loss,dev_accuracy\n1,2,0.5\n2,1,0.75\n")
        (tmp_path / cell / "pruned").mkdir()
        (tmp_path / cell / "pruned" / "history.csv").write_text("epoch,loss,dev_accuracy\n1,2,0.7\n")
    return {cell: read_run(tmp_path / cell) for cell in ("one", "two")}


def test_only_cells_that_have_their_base_count(runs, tmp_path):
    write_rows(tmp_path / "other", [dataclasses.replace(ROW, step="prune")])
    found = report(runs | {"other": read_run(tmp_path / "other")})
    assert {line[0] for line in found.tables[0].rows} == {"one", "two"}
    assert report({}).tables == ()


def test_an_unfinished_cell_tells_what_it_has_and_what_it_lacks(runs):
    two = dataclasses.replace(runs["two"], rows=runs["two"].rows[:-1])
    table = grid_table({"one": runs["one"], "two": two})
    assert len(table.rows) == 2 * len(TECHNIQUES) - 1
    assert "Not finished: two lacks student, distilled" in table.note
    assert "Not finished" not in grid_table(runs).note
    assert verdict({"one": runs["one"], "two": two}).rows


def test_every_net_and_technique_has_a_line_with_the_minutes_on_its_way(runs):
    lines = grid_table(runs).rows
    assert len(lines) == 2 * len(TECHNIQUES)
    assert lines[0] == ("one", "as trained", "90.00", "", "8.00", "10", "1,000,000", "4.00", "1.0")
    assert lines[1] == ("one", "pruned by 20 %", "80.00", "-10.00", "4.00", "10", "500,000", "2.50", "2.0")


def test_the_verdict_follows_from_the_rows(runs):
    table = verdict(runs)
    found = {line[0]: line[1:] for line in table.rows}
    # accuracy above chance: 0.8 as trained, 0.7 pruned, 0.4 the student, 0 for one bit
    assert found["as trained"] == ("1.00x", "1.00x", "1.00x")
    assert found["pruned by 20 %"] == ("1.75x", "1.75x", "**1.40x**")
    assert found["8 bit"] == ("**4.00x**", "1.00x", "-")
    assert found["1 bit"] == ("0.00x", "0.00x", "-")
    assert found["student alone"] == ("0.50x", "**2.00x**", "0.67x")
    assert "Per byte: 8 bit; the single net that is worth most is one 8 bit, 90.00 % for 2 MB." in table.note
    assert "50.00 % for 0.25 million MACs" in table.note


def test_one_base_that_hardly_learned_does_not_decide(runs):
    guessing = [dataclasses.replace(row, quality={"accuracy": 0.9}) for row in runs["one"].rows]
    guessing[0] = dataclasses.replace(guessing[0], quality={"accuracy": 0.101})
    many = runs | {"three": dataclasses.replace(runs["two"], rows=tuple(guessing))}
    assert dict(line[:2] for line in verdict(many).rows) == dict(line[:2] for line in verdict(runs).rows)


def test_what_was_not_measured_wins_nothing(runs):
    bare = {
        name: dataclasses.replace(
            run, rows=tuple(dataclasses.replace(row, packed_bytes=None, latency_ms={}) for row in run.rows)
        )
        for name, run in runs.items()
    }
    assert {line[1] for line in verdict(bare).rows} == {"-"}
    assert {line[4] for line in grid_table(bare).rows} == {"-"}
    assert "Per byte" not in verdict(bare).note


def test_a_panel_for_each_net_in_which_cut_nets_go_on(runs):
    drawing = epochs_drawing(runs)
    assert "one: as trained 75.0 %, pruned by 20 % 70.0 %; two:" in drawing.alt
    assert drawing.svg.count(">one<") == drawing.svg.count(">two<") == 1
    assert drawing.svg.count(">pruned by 20 %<") == 1


def test_the_documentation_tells_a_family_once_for_each_data_set(runs, tmp_path):
    (tmp_path / "rows" / "four").mkdir(parents=True)
    for cell, run in runs.items():
        said = {
            "name": "four_models",
            "seed": 0,
            "settings": {"data.path": "mnist.npz", "model.name": cell, "train.lr": 1},
        }
        (run.folder / "recipe.json").write_text(json.dumps(said))
        run.folder.rename(tmp_path / "rows" / "four" / cell)
    info = RecipeInfo(defaults={"data.path": None, "train.lr": 2}, report=report, together=True)
    text = results(tmp_path / "rows", lambda _: info)
    assert text.count("## four_models on four\n") == 1
    assert "| two | 8 bit | 90.00 |" in text
    assert "**4.00x**" in text
    assert "python -m solution run four_models --data mnist.npz --seed 0 --set train.lr=1\n" in text
    assert "](epochs-four.svg)" in text
    assert pictures(tmp_path / "rows", lambda _: info).keys() == {"epochs-four.svg"}
