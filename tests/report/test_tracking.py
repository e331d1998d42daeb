import dataclasses
import json
import socket
import subprocess
import sys

import pytest

from solution.__main__ import main
from solution.contracts import InputError, Row
from solution.report.tracking import FOLDER, PARENT, STEP, open_store
from solution.run_folder import read_rows, write_rows
from solution.runtime import ROOT

pytestmark = pytest.mark.long

ROW = Row(step="train", macs=1000, params=100, bytes=400, quality={"accuracy": 0.7}, seconds=6.0, hardware="a CPU")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/deep/mlflow.db")


@pytest.fixture
def folder(tmp_path):
    """Two rows: one trained, one cut."""
    out = tmp_path / "it's a run"
    write_rows(out, [ROW, dataclasses.replace(ROW, step="cut", macs=500)])
    settings = {"data.path": "x/photos.tar", "train.lr": 0.1, "cut.ratio": 0.5}
    (out / "recipe.json").write_text(json.dumps({"name": "small", "seed": 3, "settings": settings}))
    for name, text in (("train/history.csv", "epoch,loss,dev_f1\n1,2.5,0.3\n2,1.5,0.6\n"), ("cut/plan.txt", "a\n")):
        (out / name).parent.mkdir()
        (out / name).write_text(text)
    return out


def noted(store, folder):
    """(the recipe's run, {step: run}) as the client finds them."""
    experiment = store.client.get_experiment_by_name("small").experiment_id
    runs = store.client.search_runs([experiment], filter_string=f"tags.`{STEP}` != 'x'")
    (parent,) = [run for run in runs if run.data.tags.get(FOLDER) == str(folder.resolve())]
    children = [run for run in runs if run.data.tags.get(PARENT) == parent.info.run_id]
    assert len(children) == len({run.info.run_name for run in children})
    return parent, {run.info.run_name: run for run in children}


def files(store, run):
    return {file.path for file in store.client.list_artifacts(run.info.run_id)}


def test_rows_are_runs_below_their_recipes_run(store, folder):
    store.note(folder)
    parent, children = noted(store, folder)
    assert parent.info.run_name == "small on photos, seed 3: it's a run"
    assert parent.data.params["train.lr"] == "0.1"
    assert parent.info.status == "RUNNING"
    assert files(store, parent) == {"recipe.json", "rows.csv", "rows.json"}
    assert children.keys() == {"train", "cut"}
    train, cut = children["train"].data, children["cut"].data
    assert (train.metrics["macs"], cut.metrics["macs"]) == (1000, 500)
    assert train.metrics["quality.accuracy"] == 0.7
    assert train.params["train.lr"] == "0.1"
    assert "cut.ratio" not in train.params
    assert cut.params["cut.ratio"] == "0.5"
    took_ms = children["train"].info.end_time - children["train"].info.start_time
    assert took_ms >= 1e3 * ROW.seconds
    assert files(store, children["train"]) == {"history.csv", "curves.svg"}
    assert files(store, children["cut"]) == {"plan.txt"}
    losses = store.client.get_metric_history(children["train"].info.run_id, "epoch/loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 2.5), (2, 1.5)]


def test_noting_again_adds_only_what_is_new(store, folder):
    store.note(folder)
    shipped = dataclasses.replace(ROW, latency_ms={"eager": 2.5}, exported={"onnxruntime": {"bytes": 9}})
    write_rows(folder, [shipped, dataclasses.replace(ROW, step="more")])
    (folder / "train" / "model.onnx").write_bytes(b"a net")
    (folder / "tables.md").write_text("a table")
    store.note(folder)
    parent, children = noted(store, folder)
    assert files(store, parent) == {"recipe.json", "rows.csv", "rows.json", "tables.md"}
    assert "model.onnx" in files(store, children["train"])
    assert children.keys() == {"train", "cut", "more"}
    assert children["train"].data.metrics["latency_ms.eager"] == 2.5
    assert len(store.client.get_metric_history(children["train"].info.run_id, "macs")) == 1


RECIPE = """
from solution.compress.channels.step import PruneChannels
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.models.cifar_resnet import CifarResNet
from solution.train.step import Train


def recipe():
    return Recipe(name="tracked", data=Data(size=16, batch_size=16, workers=0), model=CifarResNet(depth=8),
                  stages=(Stage(name="train", step=Train(epochs=1)), Stage(name="cut", step=PruneChannels(ratio=0.5))),
                  before="train", after="cut")
"""


def test_a_store_that_fails_costs_no_training(store, tmp_path, photos, capsys, monkeypatch):
    def locked(*_):
        raise OSError("database is locked")

    monkeypatch.setattr(type(store), "note", locked)
    (tmp_path / "mine.py").write_text(RECIPE)
    words = ["run", str(tmp_path / "mine.py"), "--data", str(photos), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--track", store.uri]) == 0
    said = capsys.readouterr().out
    assert f"not noted in {store.uri} (database is locked); rows.json has everything" in said
    assert "\ntracked in" not in said
    assert len(read_rows(tmp_path / "run")) == 2


def test_a_server_that_is_down_costs_no_training_and_shows_no_password(tmp_path, photos):
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    (tmp_path / "mine.py").write_text(RECIPE)
    words = [sys.executable, "-m", "solution", "run", tmp_path / "mine.py", "--data", photos, "--out", tmp_path / "run"]
    with socket.socket() as deaf:  # takes connections and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        uri = f"http://me:hush@127.0.0.1:{deaf.getsockname()[1]}"
        done = subprocess.run([*words, "--device", "cpu", "--track", uri], cwd=ROOT, capture_output=True, text=True,
                              timeout=100)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cannot track in http://me:***@127.0.0.1" in done.stdout
    assert "hush" not in done.stdout + done.stderr
    assert len(read_rows(tmp_path / "run")) == 2


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql"])
def test_a_database_that_is_down_is_one_line_at_once(scheme):
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    code = "import sys; from solution.report.tracking import open_store; open_store(sys.argv[1])"
    with socket.socket() as deaf:  # takes connections and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        for port in (1, deaf.getsockname()[1]):
            uri = f"{scheme}://me:hush@127.0.0.1:{port}/db"
            done = subprocess.run([sys.executable, "-c", code, uri], cwd=ROOT, capture_output=True, text=True,
                                  timeout=60)  # fmt: skip
            last = done.stderr.strip().splitlines()[-1]
            assert f"cannot track in {scheme}://me:***@127.0.0.1:{port}/db: " in last
            assert "hush" not in last


def test_a_run_by_the_command_is_tracked_whole(store, tmp_path, photos, capsys):
    (tmp_path / "mine.py").write_text(RECIPE)
    words = ["run", str(tmp_path / "mine.py"), "--data", str(photos), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--track", store.uri]) == 0
    assert f"tracked in {store.uri}" in capsys.readouterr().out
    experiment = store.client.get_experiment_by_name("tracked").experiment_id
    runs = {run.info.run_name: run for run in store.client.search_runs([experiment])}
    assert runs.keys() == {"tracked on colors, seed 0: run", "train", "cut"}
    assert all(run.info.status == "FINISHED" for run in runs.values())
    assert files(store, runs["train"]) == {"model.safetensors", "history.csv", "curves.svg"}
    assert files(store, runs["cut"]) == {"model.safetensors", "plan.json", "plan.txt"}


def test_a_store_that_is_none_is_refused():
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    with pytest.raises(InputError, match="cannot track in nonsense://x"):
        open_store("nonsense://x")


def test_without_the_library_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["run", "waste_shufflenet", "--track"]) == 2
    assert 'tracking needs mlflow, which is not here: pip install -e ".[tracking]"' in capsys.readouterr().err
