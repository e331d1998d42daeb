"""What there is to choose from, as the shell shows it."""

import dataclasses
import json
import subprocess
import sys

import pytest

from solution import pipeline
from solution.__main__ import main
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.models.shufflenet import ShuffleNet
from solution.recipes.catalogue import FAMILIES, RECIPES, named
from solution.registry import STEPS
from solution.run_folder import read_run
from solution.runtime import ROOT
from solution.settings import field_meanings, meanings, settings_of
from solution.tasks import CLASSIFICATION, TASKS
from solution.train.step import Train


def test_recipes_are_listed_with_a_line_each(capsys):
    assert main(["run", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n {name} " in said for name in [*RECIPES, *FAMILIES])
    assert "family of 8" in said


def test_settings_are_listed_as_they_would_be_used(capsys):
    assert main(["run", "waste_shufflenet", "--settings", "--set", "train.epochs=7"]) == 0
    said = capsys.readouterr().out
    assert all(f" {key} " in said for key in settings_of(named("waste_shufflenet")))
    line = next(line for line in said.splitlines() if line.startswith(" train.epochs"))
    assert line.split()[1:] == ["7", "passes", "over", "the", "training", "split"]


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_setting_has_a_meaning(name):
    found = meanings(named(name))
    assert list(found) == list(settings_of(named(name)))
    assert [key for key, text in found.items() if not text] == []


@pytest.mark.parametrize("kind", STEPS.values())
def test_every_field_of_a_step_has_a_meaning(kind):
    assert {field.name for field in dataclasses.fields(kind) if field.init} <= field_meanings(kind).keys()


def test_a_command_without_a_recipe_says_how_to_find_one(capsys):
    assert main(["run"]) == 2
    assert "python -m solution run --list" in capsys.readouterr().err
    assert main(["compress"]) == 2
    assert "python -m solution compress --list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accuracy", "f1", "counts", "guesses"),
    [
        (1 / 3, 1 / 6, {"a": 500, "b": 500, "c": 500}, True),  # always the same class
        (0.34, 0.34, {"a": 500, "b": 500, "c": 500}, True),  # any class at random
        (0.5, 0.5, {"a": 500, "b": 500, "c": 500}, False),
        (0.9, 0.32, {"a": 900, "b": 50, "c": 50}, True),  # always the commonest class
        (0.88, 0.7, {"a": 900, "b": 50, "c": 50}, False),  # less accurate, and much better
        (0.5, 0.5, {}, False),
    ],
)
def test_what_is_no_better_than_a_guess(accuracy, f1, counts, guesses):
    assert CLASSIFICATION.at_chance({"accuracy": accuracy, "f1": f1}, counts) == guesses


def test_a_run_says_its_data_its_stages_and_what_differs_from_the_defaults(photos, tmp_path, monkeypatch):
    said = []
    guessing = dataclasses.replace(CLASSIFICATION, judge=lambda *_: {"f1": 1 / 6, "accuracy": 1 / 3})
    monkeypatch.setitem(TASKS, "classification", guessing)
    recipe = Recipe(
        name="colors",
        data=Data(path=str(photos), size=32, batch_size=16, workers=0),
        model=ShuffleNet(units=(1, 1, 1), width=0.1),
        stages=(Stage(name="train", step=Train(epochs=1, lr=1e-9, warmup_epochs=0)),),
        before="train",
        after="train",
    )
    (row,) = pipeline.run(recipe, tmp_path, log=said.append)
    assert "colors: 3 classes (blue, green, red); pictures: 66 train, 6 dev, 18 val" in said
    assert "\nstage 1 of 1, train: Train(epochs=1, lr=1e-09, warmup_epochs=0)" in said
    assert row.score is None
    assert any("train is at chance level" in line for line in said)
    assert read_run(tmp_path).counts["val"] == {"blue": 6, "green": 6, "red": 6}
    assert json.loads((tmp_path / "recipe.json").read_text())["data"]["classes"] == ["blue", "green", "red"]


def test_help_is_quick():
    code = "import sys, time; from solution.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(time.process_time(), 'torch' in sys.modules)"
    best = min(_seconds(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True))
               for _ in range(3))  # fmt: skip
    assert best < 0.3


def _seconds(done):
    seconds, heavy = done.stdout.split()[-2:]
    assert heavy == "False"
    return float(seconds)
