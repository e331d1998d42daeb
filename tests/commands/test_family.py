import concurrent.futures
import multiprocessing
import os

import pytest

from solution.__main__ import main
from solution.commands import family as family_command, run as run_command
from solution.contracts import InputError
from solution.run_folder import read_rows

pytestmark = pytest.mark.long

FAMILY = """
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.models.cifar_resnet import CifarResNet
from solution.train.step import Train


def cells(data):
    return {f"photos/{width}": one(data, width) for width in (0.25, 0.5)}


def one(data, width):
    return Recipe(name="family", data=Data(path=data, size=16, batch_size=16, workers=0),
                  model=CifarResNet(depth=8, width=width), stages=(Stage(name="train", step=Train(epochs=1)),),
                  before="train", after="train")
"""


@pytest.fixture
def family(tmp_path, photos):
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    return ["run", str(path), "--data", str(photos), "--out", str(tmp_path / "out"), "--device", "cpu"]


def test_cells_run_one_by_one_and_resume(family, tmp_path, capsys):
    assert main([*family, "--set", "train.lr=0.05"]) == 0
    text = capsys.readouterr().out
    assert "photos/0.25: done" in text
    assert "photos/0.5: done" in text
    rows = [read_rows(tmp_path / "out" / "photos" / width) for width in ("0.25", "0.5")]
    assert rows[0][0].params < rows[1][0].params
    assert main(family) == 2
    assert "already holds photos/0.25, photos/0.5: add --resume" in capsys.readouterr().err
    assert main([*family, "--set", "train.lr=0.05", "--resume"]) == 0
    assert rows == [read_rows(tmp_path / "out" / "photos" / width) for width in ("0.25", "0.5")]


def test_a_cell_that_fails_does_not_stop_the_others(family, tmp_path, capsys):
    assert main(family) == 0
    done = tmp_path / "out" / "photos" / "0.5"
    for path in done.glob("*.*"):
        path.unlink()
    assert main([*family, "--resume", "--seed", "1"]) == 2  # the other cell's folder holds a run of seed 0
    error = capsys.readouterr().err
    assert "1 of 2 cells failed: photos/0.25: " in error
    assert "seed is 0 there, 1 here" in error
    assert read_rows(done)[0].seed == 1


def test_a_mistake_in_one_cell_costs_that_cell_alone(family, tmp_path, capsys, monkeypatch):
    run = run_command.run_once

    def broken(recipe, out, *others):
        if out.name == "0.25":
            raise ZeroDivisionError("no such net")
        return run(recipe, out, *others)

    monkeypatch.setattr(run_command, "run_once", broken)
    assert main(family) == 2
    assert "1 of 2 cells failed: photos/0.25: ZeroDivisionError: no such net" in capsys.readouterr().err
    assert len(read_rows(tmp_path / "out" / "photos" / "0.5")) == 1


def test_what_stops_several_cells_is_told_once(family, capsys, monkeypatch):
    def broken(recipe, out, *others):
        raise InputError("no photos here")

    monkeypatch.setattr(run_command, "run_once", broken)
    assert main(family) == 2
    assert "2 of 2 cells failed: photos/0.25, photos/0.5: no photos here\n" in capsys.readouterr().err


def test_a_killed_cell_takes_no_other_with_it(tmp_path, capsys):
    assert "killed" in family_command._outcome(_killed)


def _killed():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(os._exit, 9).result()


def test_two_cells_run_side_by_side(family, tmp_path, capsys):
    assert main([*family, "--workers", "2"]) == 0
    for width in ("0.25", "0.5"):
        assert len(read_rows(tmp_path / "out" / "photos" / width)) == 1
        assert "rows, checkpoints and histories" in (tmp_path / "out" / "photos" / width / "log.txt").read_text()
    assert "macro F1" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "2"], "--folds is for one recipe"),
        (["--workers", "0"], "--workers must be 1 to 256, got 0"),
        (["--workers", "1000000"], "--workers must be 1 to 256, got 1000000"),
        (["--set", "train.epoch=1"], "did you mean train.epochs"),
    ],
)
def test_bad_words(family, words, message, capsys):
    assert main([*family, *words]) == 2
    assert message in capsys.readouterr().err


def test_workers_are_for_a_family(photos, capsys):
    assert main(["run", "waste_shufflenet", "--data", str(photos), "--workers", "2"]) == 2
    assert "--workers is for a family of recipes" in capsys.readouterr().err
