import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from shell import command, run

from solution import checkpoint, pipeline
from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, Recipe, Stage
from solution.data.loaders import Data
from solution.export import files
from solution.models.shufflenet import ShuffleNet
from solution.run_folder import RunFolder, read_rows
from solution.runtime import ROOT
from solution.train.distillation import Distill
from solution.train.progress import Bar
from solution.train.step import Train
from solution.train.trainer import Trainer


@pytest.fixture
def recipe(photos):
    return Recipe(
        name="colors",
        data=Data(path=str(photos), size=32, batch_size=16, workers=0),
        model=ShuffleNet(units=(2, 2, 1), width=0.1),
        stages=(
            Stage(name="train", step=Train(epochs=2, lr=0.05, warmup_epochs=0)),
            Stage(name="prune_layers", step=PruneLayers(units=(1, 1, 1))),
            Stage(name="scratch", step=Train(epochs=1), after=Stage.NEW),
        ),
        before="train",
        after="prune_layers",
    )


def test_the_command_makes_rows_checkpoints_histories_and_a_table(finished):
    out, text = finished
    names = ["train", "before", "prune_layers", "after"]
    assert [row.step for row in read_rows(out)] == names
    with (out / "rows.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == names
    assert all((out / name / "model.safetensors").exists() for name in names)
    assert (out / "train" / "history.csv").exists()
    assert not list(out.rglob("training.safetensors"))
    assert json.loads((out / "prune_layers" / "plan.json").read_text())["kind"] == "prune_layers"
    assert "Before" in text
    assert "After" in text
    assert "macro F1" in text
    assert "\nstage 2 of 4, before: " in text
    after = text[text.index("\nnext:\n") :].strip().splitlines()[1:]
    assert [line.split()[3] for line in after] == ["report", "predict", "serve", "export"]
    assert all(line.startswith("  python -m solution ") and f"{out}" in line for line in after)


def test_rows_say_what_the_checkpoint_is(finished):
    out, _ = finished
    row = read_rows(out)[-1]
    model, header = checkpoint.load(out / "after.safetensors")
    assert row.bytes == (out / "after.safetensors").stat().st_size
    assert row.params == sum(p.numel() for p in model.parameters())
    assert (header.figures["macs"], header.figures["quality"]["f1"]) == (row.macs, row.quality["f1"])
    assert row.macs < read_rows(out)[1].macs


def test_branches_start_where_the_recipe_says(recipe, tmp_path):
    rows = list(pipeline.run(recipe, tmp_path / "run", log=lambda _: None))
    assert [row.step for row in rows] == ["train", "prune_layers", "scratch"]
    assert rows[2].params == rows[0].params > rows[1].params


def test_a_finished_run_is_not_overwritten_and_resumes_to_its_rows(recipe, tmp_path):
    rows = list(pipeline.run(recipe, tmp_path, log=lambda _: None))
    with pytest.raises(InputError, match="--resume"):
        next(pipeline.run(recipe, tmp_path))
    assert list(pipeline.run(recipe, tmp_path, resume=True, log=lambda _: None)) == rows
    with pytest.raises(InputError, match="seed is 0 there, 1 here"):
        next(pipeline.run(replace(recipe, seed=1), tmp_path, resume=True))


def test_a_second_run_into_a_folder_that_is_being_written_is_refused(recipe, tmp_path):
    first = pipeline.run(recipe, tmp_path / "run", log=lambda _: None)
    next(first)
    there = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    for resume in (False, True):
        with pytest.raises(InputError, match="is already being written"):
            next(pipeline.run(replace(recipe, seed=1), tmp_path / "run", resume=resume, log=lambda _: None))
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == there
    first.close()


def changed_data(photos, folder, how):
    shutil.copytree(photos, folder)
    path = folder / "train" / "red" / "0.png"
    if how == "a picture less":
        path.unlink()
    elif how == "another label":
        path.rename(folder / "train" / "blue" / "other.png")
    else:
        shutil.copy(folder / "train" / "red" / "1.png", path)
    return str(folder)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a picture less", "train had 66 and has 65"),
        ("another label", "labels have changed"),
        ("another picture", "pictures have changed"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(recipe, photos, tmp_path, how, message):
    shutil.copytree(photos, tmp_path / "data")
    recipe = replace(recipe, data=replace(recipe.data, path=str(tmp_path / "data")), stages=recipe.stages[:2])
    next(pipeline.run(recipe, tmp_path / "run", log=lambda _: None))
    shutil.rmtree(tmp_path / "data")
    changed_data(photos, tmp_path / "data", how)
    with pytest.raises(InputError, match=f"begun with other data, so it cannot be resumed: .*({message})"):
        next(pipeline.run(recipe, tmp_path / "run", resume=True, log=lambda _: None))


def test_the_state_that_a_kill_left_of_a_finished_stage_goes(recipe, tmp_path):
    recipe = replace(recipe, stages=recipe.stages[:2])
    next(pipeline.run(recipe, tmp_path, log=lambda _: None))
    state = tmp_path / recipe.stages[0].name / "training.safetensors"
    assert not state.exists()
    state.write_bytes(b"left")
    list(pipeline.run(recipe, tmp_path, resume=True, log=lambda _: None))
    assert not state.exists()


def test_a_run_that_goes_on_with_other_versions_says_so(recipe, tmp_path):
    recipe = replace(recipe, stages=recipe.stages[:2])
    next(pipeline.run(recipe, tmp_path, log=lambda _: None))
    about = json.loads((tmp_path / "recipe.json").read_text())
    now = about["versions"]["torch"]
    about["versions"]["torch"] = "1.0"
    (tmp_path / "recipe.json").write_text(json.dumps(about))
    said = []
    list(pipeline.run(recipe, tmp_path, resume=True, log=said.append))
    assert any(f"torch 1.0 then, {now} now" in line for line in said)


def test_the_seconds_of_a_row_count_what_was_done_before_a_stop(recipe, tmp_path, monkeypatch):
    def stop(self, history):
        if len(history) == 1:
            time.sleep(2)  # after the state was written: of no use to the next start
            raise KeyboardInterrupt

    slow = Trainer.epoch
    monkeypatch.setattr(Trainer, "epoch", lambda self, epoch, batches: (time.sleep(1.5), slow(self, epoch, batches))[1])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bar, "show", stop)
        next(pipeline.run(recipe, tmp_path, log=lambda _: None))
    start = time.perf_counter()
    row = next(pipeline.run(recipe, tmp_path, resume=True, log=lambda _: None))
    elapsed = time.perf_counter() - start
    with (tmp_path / "train" / "history.csv").open() as file:
        first, second = (float(line["seconds"]) for line in csv.DictReader(file))
    assert min(first, second) >= 1.5
    assert first + second - 0.1 < row.seconds < first + elapsed


def test_a_teacher_may_be_a_packed_file(recipe, small_net, tmp_path):
    about = {"classes": ("blue", "green", "red"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32}
    header = checkpoint.header_of(small_net, **about)
    loaders = pipeline.opener(recipe.data, 0, splits=("train", "dev", "calibration"))
    stage = pipeline.stage_runs(recipe, recipe.stages[:1], RunFolder(path=tmp_path), loaders)["train"]
    for name in ("teacher.packed", "teacher.safetensors"):
        files.save(tmp_path / name, small_net, header)
        teacher, found = stage.context().load(tmp_path / name)
        assert found == header
        assert torch.equal(teacher.output.weight, small_net.output.weight)


def weights(folder):
    model, _ = checkpoint.load(folder / "after.safetensors")
    return model.state_dict()


def test_a_stage_may_bring_a_net_and_a_size_of_its_own(recipe, tmp_path):
    large = ShuffleNet(units=(2, 2, 2), width=0.15)
    stages = (
        Stage(name="teacher", step=Train(epochs=1), model=large, size=40),
        Stage(name="train", step=Distill(epochs=1, teachers=("teacher",)), after=Stage.NEW),
        Stage(name="finer", step=Train(epochs=1), size=48),
        Stage(name="again", step=Train(epochs=1)),
    )
    recipe = replace(recipe, data=replace(recipe.data, views=1), stages=stages, before="teacher", after="again")
    teacher, student, finer, again = pipeline.run(recipe, tmp_path, log=lambda _: None)
    assert teacher.params == sum(p.numel() for p in large.build(3).parameters())
    assert student.params == sum(p.numel() for p in recipe.model.build(3).parameters())
    assert student.macs < finer.macs == again.macs
    sizes = [checkpoint.load(tmp_path / stage.name / "model.safetensors")[1].size for stage in stages]
    assert sizes == [40, 32, 48, 48]


def test_a_cut_of_blocks_that_are_not_there_is_refused_before_the_training(recipe, tmp_path):
    longer = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[1], step=PruneLayers(units=(1, 3, 1)))))
    with pytest.raises(InputError, match="has 2 blocks and can keep 1 to 2, not 3"):
        next(pipeline.run(longer, tmp_path / "out"))
    assert not (tmp_path / "out" / "train").exists()


def test_a_size_that_a_later_stage_cannot_have_is_known_before_the_training(recipe):
    stages = (*recipe.stages, Stage(name="larger", step=Train(epochs=1), size=64))
    with pytest.raises(InputError, match="cache_size must be at least"):
        replace(recipe, data=replace(recipe.data, cache_size=40), stages=stages)


@pytest.mark.long
def test_a_run_killed_at_any_stage_resumes_to_the_same_weights(photos, finished, tmp_path):
    whole = weights(finished[0])
    out = tmp_path / "cut"
    for landmark in ("train/training.safetensors", "before/model.safetensors"):
        words = command(photos, out, *(["--resume"] if out.exists() else []))
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (out / landmark).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = run(command(photos, out, "--resume"))
    assert done.returncode == 0, done.stderr
    cut = weights(out)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert [row.step for row in read_rows(out)] == ["train", "before", "prune_layers", "after"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "train.epoch=3"], "did you mean train.epochs"),
        (["--set", "trains.epochs=3"], "there is no setting"),
        (["--set", "train.epochs"], "KEY=VALUE"),
        (["--data", "nowhere.tar"], "nowhere.tar"),
    ],
)
def test_bad_words_end_with_code_2_one_clear_line_and_nothing_written(photos, tmp_path, words, message):
    done = run([*command(photos, tmp_path / "out"), *words])
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe_lists_the_right_ones(tmp_path):
    done = run([sys.executable, "-m", "solution", "run", "waste", "--out", str(tmp_path / "x")])
    assert (done.returncode, "waste_shufflenet" in done.stderr) == (2, True)


def test_rows_that_are_no_rows_are_refused(tmp_path):
    (tmp_path / "rows.json").write_text('[{"color": "blue"}]')
    with pytest.raises(InputError, match="not a table of rows"):
        read_rows(tmp_path)
    assert os.listdir(tmp_path) == ["rows.json"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((Stage(name="a", step=Train()), Stage(name="a", step=Train())), "'a' is taken"),
        ((Stage(name="data", step=Train()),), "'data' is taken"),
        ((Stage(name="a", step=Train(), after="b"),), "after 'b'"),
        (
            (Stage(name="a", step=Train()), Stage(name="b", step=Train(), after="a", model=ShuffleNet())),
            "b brings a model of its own, so it cannot go on after another",
        ),
    ],
)
def test_a_recipe_that_cannot_be_addressed_is_refused(recipe, stages, message):
    with pytest.raises(InputError, match=message):
        replace(recipe, stages=stages, before="a", after="a")


@pytest.mark.long
def test_folds_run_one_after_another_and_their_spread_is_shown(photos, tmp_path):
    done = run(command(photos, tmp_path / "folds", "--folds", "2"))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted((tmp_path / "folds").iterdir())] == ["fold0", "fold1"]
    assert "2 run(s)" in done.stdout
    assert " ± " in done.stdout
