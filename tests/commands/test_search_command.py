"""``python -m solution search``: one search by two workers, and the words that are refused."""

import shlex
import signal
import subprocess
import sys
import time

import pytest
from optuna.storages import InMemoryStorage
from shell import SMALL, run

from solution.__main__ import main
from solution.recipes.catalogue import named
from solution.runtime import ROOT

VARY = ["--vary", "train.lr = after.lr=(0.01, 0.2, 'log')", "--vary", "prune_layers.units=[(1, 2, 1), (2, 2, 1)]"]
SHORT = ["train.epochs=1", "before.epochs=1", "after.epochs=2", "train.warmup_epochs=0", "after.warmup_epochs=0"]


def words(photos, out, *more):
    settings = [word for setting in SMALL + SHORT for word in ("--set", setting)]
    start = [sys.executable, "-m", "solution", "search", "waste_shufflenet", "--data", str(photos), "--out", str(out)]
    return [*start, "--trials", "3", "--first-epochs", "1", *settings, *VARY, *more]


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_writes_a_recipe(photos, tmp_path):
    out = tmp_path / "out"
    started = subprocess.Popen(words(photos, out, "--workers", "2"), cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(out.rglob("training.safetensors")) and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = run(words(photos, out))
    assert done.returncode == 0, done.stderr
    assert "trial 3/3" in done.stdout
    assert "best score" in done.stdout
    assert "train.lr = after.lr: 0.01 to 0.2 (log)" in done.stdout
    recipe = named(str(out / "best.py"))
    assert recipe.name == "waste_shufflenet_best"
    assert recipe.stages[0].step.lr == recipe.stages[3].step.lr
    last = done.stdout.strip().splitlines()[-1]
    assert shlex.split(last)[2:7] == ["python", "-m", "solution", "run", str(out / "best.py")]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--vary", "train.lrs=[0.1]"], "did you mean train.lr"),
        (["--vary", "train.lr=0.1 to 0.2"], "--vary takes ADDRESS="),
        (["--workers", "0"], "--workers must be 1 to 256, got 0"),
        (["--workers", "1000000"], "--workers must be 1 to 256, got 1000000"),
        (["--trials", "0"], "at least 1 trial"),
        (["--hope", "80"], "must lie in (0, 1], got 80"),
        (["--storage", "nosuch://here"], "cannot reach the storage"),
        (["--data", "nowhere.tar"], "nowhere.tar"),
    ],
)
def test_bad_words_end_with_one_clear_line(photos, tmp_path, capsys, more, message):
    context = ["search", "waste_shufflenet", "--data", str(photos), "--out", str(tmp_path / "out"), *more]
    assert main(context) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


def test_a_password_is_shown_nowhere(photos, tmp_path, capsys, monkeypatch):
    pools = []

    def remembered(self):
        pools.append(self)

    monkeypatch.setattr("solution.search.session.open_storage", lambda where: InMemoryStorage())
    monkeypatch.setattr("solution.search.session.WorkerPool.run", remembered)
    url = "postgresql://me:hush@host/trials"
    assert main([*words(photos, tmp_path)[3:], "--storage", url]) == 2  # nothing was trained
    assert "hush" not in " ".join(pools[0].command)
    assert pools[0].secrets == {"SOLUTION_STORAGE": url}
    monkeypatch.undo()
    assert main([*words(photos, tmp_path)[3:], "--storage", "postgresql+none://me:hush@host/trials"]) == 2
    captured = capsys.readouterr()
    assert "hush" not in captured.out + captured.err
    assert "postgresql+none://me:***@host/trials" in captured.err


def test_an_unknown_recipe(tmp_path, capsys):
    assert main(["search", "waste", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "there is no recipe 'waste' (did you mean waste_" in error
    assert "; there are: waste_shufflenet, " in error
