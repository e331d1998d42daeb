"""``python -m solution compress``: cut by steps, or measure."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from solution import checkpoint
from solution.__main__ import main
from solution.contracts import plans_of
from solution.data.loaders import Data
from solution.export import files
from solution.models.shufflenet import ShuffleNet
from solution.registry import STEPS
from solution.run_folder import read_run
from solution.runtime import ROOT
from solution.train.step import Train


def saved(path, units=(2, 2, 1), classes=("blue", "green", "red")):
    """The path of a checkpoint; without other wishes for the classes of `photos`."""
    torch.manual_seed(0)
    net = ShuffleNet(units=units, width=0.1).build(len(classes)).eval()
    header = checkpoint.header_of(net, classes=classes, mean=(0.5,) * 3, std=(0.2,) * 3, size=32)
    checkpoint.save(path, net, header)
    return path


@pytest.fixture(scope="module")
def net_file(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("nets") / "net.safetensors")


@pytest.mark.long
def test_steps_follow_each_other_into_a_checkpoint_that_reloads(net_file, photos, tmp_path, capsys):
    out = tmp_path / "new" / "small.safetensors"
    steps = ["--step", "prune_layers count=1", "--step", "prune_layers units=1,1,1 ranking=last"]
    assert main(["compress", str(net_file), *steps, "--data", str(photos), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "step 2 of 3: PruneLayers(units=(1, 1, 1), ranking='last')" in said
    assert "step 3 of 3: Recover()" in said
    assert said.count("blocks  removed") == 2
    for figure in ("Before", "After", "MACs", "parameters", "checkpoint, bytes", "macro F1"):
        assert figure in said
    assert f"written: {out}" in said
    net, header = checkpoint.load(out)
    assert len(plans_of(net)) == 2
    assert f"{header.figures['macs']:,}" in said
    assert header.recipe["steps"] == [steps[1], steps[3], "recover"]
    assert (header.classes, header.size) == (("blue", "green", "red"), 32)


def test_nothing_is_trained_after_a_cut_where_that_is_not_wanted(net_file, photos, tmp_path, capsys):
    words = ["--step", "prune_layers count=1", "--no-recover", "--out", str(tmp_path / "small.safetensors")]
    assert main(["compress", str(net_file), *words, "--data", str(photos)]) == 0
    assert "step 1 of 1: PruneLayers(count=1)" in capsys.readouterr().out


def test_a_net_of_a_library_needs_no_data(tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    words = ["torchvision:shufflenet_v2_x0_5", "--step", "prune_layers macs=90% ranking=influence", "--size", "32"]
    assert main(["compress", *words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "stage3" in said
    assert "macro F1" not in said
    net, header = checkpoint.load(out)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    assert header.size == 32


def test_sensitivity_writes_a_table_and_a_picture(photos, tmp_path, capsys):
    net_file = saved(tmp_path / "net.safetensors", units=(1,))
    words = ["compress", str(net_file), "--sensitivity", "--data", str(photos), "--out", str(tmp_path)]
    assert main(words) == 0
    assert "prune_weights: F1 " in capsys.readouterr().out
    heading = (tmp_path / "sensitivity.csv").read_text().splitlines()[0]
    assert heading == "method,layer,ratio,f1,accuracy,macs"
    with Image.open(tmp_path / "sensitivity.png") as image:
        assert image.format == "PNG"


@pytest.mark.long
def test_the_score_is_computed_where_it_is_asked_for(net_file, photos, tmp_path, capsys):
    words = ["compress", str(net_file), "--step", "prune_layers count=1 ranking=last", "--data", str(photos)]
    words += ["--no-recover"]
    assert main([*words, "--out", str(tmp_path / "a.safetensors")]) == 0
    assert "(lower is better)" not in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "b.safetensors"), "--score"]) == 0
    assert "score (lower is better)" in capsys.readouterr().out


def test_what_a_stopped_command_trained_is_not_lost(net_file, photos, tmp_path):
    out, whole = tmp_path / "small.safetensors", tmp_path / "whole.safetensors"
    steps = ["--step", "prune_layers count=1 ranking=last", "--step", "train epochs=10 lr=0.05"]
    words = [sys.executable, "-m", "solution", "compress", str(net_file), *steps, "--data", str(photos)]
    started = subprocess.Popen([*words, "--out", str(out)], cwd=ROOT, text=True, stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    state = tmp_path / "small.safetensors.work" / "2_train" / "training.safetensors"
    while not state.exists() and started.poll() is None:
        time.sleep(0.02)
    started.terminate()
    _, error = started.communicate(timeout=60)
    assert (started.returncode, error.strip()) == (
        143, "stopped; what was finished is kept; run the same command with --resume to go on"
    )  # fmt: skip
    assert not out.exists()
    done = subprocess.run([*words, "--out", str(out), "--resume"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout
    assert not state.parent.parent.exists()
    subprocess.run([*words, "--out", str(whole)], cwd=ROOT, check=True, capture_output=True)
    first, second = (checkpoint.load(path)[0].state_dict() for path in (out, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_going_on_with_other_words_is_refused(net_file, tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    work = tmp_path / "small.safetensors.work"
    work.mkdir()
    (work / "compress.json").write_text("{}")
    words = ["compress", str(net_file), "--step", "prune_layers count=1 ranking=last", "--out", str(out), "--resume"]
    assert main(words) == 2
    assert "was begun with another command" in capsys.readouterr().err


def test_steps_are_listed_with_fields_defaults_and_meanings(capsys):
    assert main(["compress", "--list"]) == 0
    said = capsys.readouterr().out
    for name, kind in STEPS.items():
        assert f"\n {name} " in said
        assert all(f"   {field.name} " in said for field in dataclasses.fields(kind))
    assert "passes over the training split" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --step, once or several times, or --sensitivity"),
        (["--sensitivity", "--step", "prune_layers count=1"], "give either --step"),
        (["--sensitivity"], "--sensitivity needs --data"),
        (["--step", "prune_luck"], "there is no step 'prune_luck'"),
        (["--step", "prune_layers count=9"], "only 2 keep the shape"),
        (["--step", "prune_layers count=1"], "needs dev batches"),
    ],
)
def test_what_cannot_be_done_is_explained(net_file, tmp_path, capsys, words, message):
    assert main(["compress", str(net_file), *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_nowhere(tmp_path, capsys):
    step = ["--step", "prune_layers count=1", "--out", str(tmp_path / "out")]
    assert main(["compress", "resnet18", *step]) == 2
    assert "there is no file resnet18; MODEL is a file of ours or one of timm:NAME" in capsys.readouterr().err
    assert main(["compress", "timm:resnet_none", *step]) == 2
    assert "timm has no classifier called" in capsys.readouterr().err


def test_photos_of_other_classes_are_refused(photos, tmp_path, capsys):
    path = saved(tmp_path / "net.safetensors", classes=("cat", "dog"))
    words = ["compress", str(path), "--step", "prune_layers count=1", "--data", str(photos), "--out", "out"]
    assert main(words) == 2
    assert "the net knows the classes cat, dog; the data have blue, green, red" in capsys.readouterr().err


def test_a_packed_file_goes_in_and_comes_out(net_file, tmp_path, capsys):
    packed = tmp_path / "net.packed"
    files.save(packed, *files.load(net_file))
    out = tmp_path / "int8.packed"
    step = "quantize scheme=int8 fold_norms=True other_dtype=bfloat16"
    assert main(["compress", str(packed), "--step", step, "--out", str(out)]) == 0
    net, header = files.load(out)
    assert len(header.plans) == 1
    assert f"{out.stat().st_size:,}" in capsys.readouterr().out
    assert out.stat().st_size < 0.6 * packed.stat().st_size
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_step_gets_as_many_calibration_images_as_it_asks_for(net_file, tmp_path, capsys):
    chance, labels = np.random.default_rng(0), np.arange(420) % 3
    pixels = chance.integers(0, 256, (420, 32, 32, 3), dtype=np.uint8)
    many = {"classes": ["blue", "green", "red"], "x_val": pixels[:6], "y_val": labels[:6]}
    np.savez(tmp_path / "many.npz", x_train=pixels, y_train=labels, **many)
    for count, told in ((300, ""), (1000, "images=1000, but there are 378 calibration images")):
        words = ["--step", f"quantize activations=8 observer=minmax images={count}"]
        words += ["--data", str(tmp_path / "many.npz"), "--out", str(tmp_path / "int8.packed")]
        assert main(["compress", str(net_file), *words]) == 0
        said = capsys.readouterr().out
        assert told in said
        assert ("calibration images: these are used" in said) == bool(told)


def test_every_step_leaves_a_row_and_the_log_is_kept(net_file, photos, tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    steps = ["--step", "prune_layers count=1 ranking=last", "--step", "train epochs=9 lr=0.01 warmup_epochs=0"]
    words = ["compress", str(net_file), *steps, "--data", str(photos), "--out", str(out)]
    settings = ["--set", "train.epochs=1", "--set", "data.batch_size=16", "--set", "data.workers=0"]
    assert main([*words, *settings, "--teacher", "self"]) == 0
    said = capsys.readouterr().out
    assert "Distill(epochs=1, " in said
    run = read_run(tmp_path / "small.safetensors.run")
    assert [row.step for row in run.rows] == ["before", "1_prune_layers", "2_train"]
    assert run.rows[0].macs > run.rows[1].macs == run.rows[2].macs
    assert "step 2 of 2" in (tmp_path / "small.safetensors.run" / "log.txt").read_text()
    assert main(["report", str(run.folder)]) == 0


def test_nothing_is_written_when_more_is_lost_than_was_allowed(tmp_path, photos, capsys):
    loaders = Data(path=str(photos), size=32, batch_size=8, workers=0).open()
    torch.manual_seed(0)
    net = ShuffleNet(units=(2, 2, 1), width=0.1).build(3)
    context = loaders.context()
    net = Train(epochs=6, lr=0.05, warmup_epochs=0)(net, context)
    path, out = tmp_path / "net.safetensors", tmp_path / "small.safetensors"
    spec = {"classes": loaders.info.classes, "mean": loaders.mean, "std": loaders.std, "size": 32}
    checkpoint.save(path, net, checkpoint.header_of(net, **spec))
    words = ["compress", str(path), "--step", "prune_channels ratio=0.9", "--data", str(photos), "--out", str(out)]
    assert main([*words, "--max-drop", "0.5", "--no-recover"]) == 2
    assert "macro F1 on dev falls by" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--step", "distill teachers=none.safetensors live=True", "--data", "PHOTOS"],
         "step 2 of 2, Distill(teachers=('none.safetensors',), live=True): there is no net none"),
        (["--step", "train epochs=1"], "step 2 of 2, Train(epochs=1) needs"),
        (["--step", "prune_layers units=9,9,9 ranking=last"], "step 2 of 2, PruneLayers"),
        (["--set", "train.epochs=3"], "NAME is one of data, prune_layers"),
        (["--teacher", "self"], "--teacher is for steps that train"),
        (["--max-drop", "1"], "name them with --data"),
    ],
)  # fmt: skip
def test_all_steps_are_checked_before_the_first_one_runs(net_file, photos, tmp_path, capsys, more, message):
    first = ["--step", "prune_layers count=1 ranking=last"]
    words = [*first, *(str(photos) if word == "PHOTOS" else word for word in more)]
    assert main(["compress", str(net_file), *words, "--out", str(tmp_path / "out.safetensors")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "step 1 of" not in printed.out
    assert not list(tmp_path.iterdir())
