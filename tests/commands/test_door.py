"""The commands on nets of elsewhere, and the newcomer's way from a trained net to an int8 file that answers alone."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from models.foreign import clever, net_of, write_code

from solution import checkpoint
from solution.__main__ import main
from solution.runtime import ROOT

FED = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--size", "32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with my_model.py and the weights of a net that knows the classes of `photos`."""
    folder = tmp_path_factory.mktemp("own")
    torch.save({"state_dict": clever(net_of(write_code(folder))).state_dict()}, folder / "best.pth")
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


OWN = ["my_model.py:Net", "--weights", "best.pth", *FED]


def said(capsys, *words):
    os.environ.pop("FEATHERWEIGHT_NAMED_CODE", None)  # each command is a process of its own
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    os.environ.pop("FEATHERWEIGHT_NAMED_CODE", None)
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_a_net_of_ones_own_is_judged(here, photos, capsys):
    text = said(capsys, "validate", *OWN, "--data", photos, "--json", "told.json")
    assert "weights: best.pth" in text
    assert "f1 1.0000, accuracy 1.0000" in text
    assert json.loads((here / "told.json").read_text())["accuracy"] == 1.0


def test_a_net_that_is_fed_wrong_is_told_to_be_at_chance(here, photos, capsys):
    text = said(capsys, "validate", *OWN, "--mean", "90,90,90", "--data", photos)
    assert "at chance: are mean and std right" in text


@pytest.mark.long
def test_every_command_takes_it(here, photos, tmp_path, capsys):
    photo = photos / "val/red/0.png"
    assert said(capsys, "predict", *OWN, photo).split()[1:3] == ["class", "2"]
    (here / "names.txt").write_text("blue\ngreen\nred\n")
    assert said(capsys, "predict", *OWN, "--classes", "names.txt", photo).split()[1] == "red"
    assert "stem.0" in said(capsys, "inspect", *OWN)
    table = said(
        capsys, "bench", *OWN, "--rounds", 1, "--batch", 1, "--threads", 1, "--runtimes", "eager", "onnxruntime"
    )
    assert table.count("my_model.py:Net") >= 2
    out = tmp_path / "net.onnx"
    assert "macro F1 on val: 1.0000 in PyTorch, 1.0000 in the file" in said(
        capsys, "export", *OWN, "--format", "onnx", "--data", photos, "--out", out
    )
    assert said(capsys, "predict", out, photo).split()[1] == "red"
    assert "accuracy 1.0000" in said(capsys, "validate", out, "--data", photos)


@pytest.mark.long
def test_four_commands_lead_from_trained_weights_to_an_int8_file_that_answers_alone(here, photos, tmp_path):
    text = (ROOT / "docs" / "quickstart.md").read_text()
    block = text[text.index("## Your own trained net") :].split("```sh\n")[1].split("```")[0]
    commands = [line for line in block.replace("\\\n", " ").splitlines() if line]
    assert len(commands) <= 4
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "data").symlink_to(photos)
    for name in ("my_model.py", "beside.py", "best.pth"):
        (tmp_path / name).write_bytes((here / name).read_bytes())
    (tmp_path / "photo.jpg").write_bytes((photos / "val/green/0.png").read_bytes())
    for command in commands:
        words = shlex.split(command.replace("epochs=10", "epochs=1"))
        path = "" if "predict_onnx.py" in command else str(ROOT)
        done = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": path})  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "green"


def test_a_net_that_compress_wrote_is_named_by_its_code_again(here, photos, tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    text = said(capsys, "compress", *OWN, "--step", "prune_channels ratio=0.5", "--data", photos,
                "--no-recover", "--out", out)  # fmt: skip
    assert "as it came, on 18 pictures of val: f1 1.0000, accuracy 1.0000" in text
    assert f"export 'my_model.py:Net(num_classes=3)' --weights {out} --format onnx" in text
    header = checkpoint.read_header(out)
    assert (header.code, header.classes, header.size) == (
        "my_model.py:Net(num_classes=3)",
        ("blue", "green", "red"),
        32,
    )
    assert "my_model.py:Net" in refused(capsys, "export", out, "--format", "onnx")
    assert "accuracy 1.0000" in said(capsys, "validate", "my_model.py:Net", "--weights", out, "--data", photos)
    packed = tmp_path / "small.packed"
    said(capsys, "export", "my_model.py:Net", "--weights", out, "--format", "packed", "--out", packed)
    assert "accuracy 1.0000" in said(capsys, "validate", "my_model.py:Net", "--weights", packed, "--data", photos)


def foreign_onnx(path, batch="b", side=32, last=False):
    """An ONNX file of somebody else, without a description: a net that tells blue, green and red."""
    onnx = pytest.importorskip("onnx")
    weight = np.zeros((3, 3), dtype=np.float32)
    weight[[0, 1, 2], [2, 1, 0]] = 4
    axes = [1, 2] if last else [2, 3]
    shape = [batch, side, side, 3] if last else [batch, 3, side, side]
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        onnx.helper.make_node("Gemm", ["means", "w", "bias"], ["y"], transB=1),
    ]
    held = {"w": weight, "bias": np.zeros(3, np.float32), "axes": np.array(axes, np.int64)}
    graph = onnx.helper.make_graph(
        nodes,
        "theirs",
        [onnx.helper.make_tensor_value_info("x", 1, shape)],
        [onnx.helper.make_tensor_value_info("y", 1, [batch, 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("made", [{}, {"batch": 1}, {"batch": 4}, {"last": True}, {"side": "s"}])
def test_an_onnx_file_of_anyone_is_judged_asked_and_timed(tmp_path, photos, capsys, made):
    path = foreign_onnx(tmp_path / "theirs.onnx", **made)
    fed = FED if made.get("side") else FED[:4]
    assert "accuracy 1.0000" in said(capsys, "validate", path, *fed, "--data", photos)
    assert "class 2" in said(capsys, "predict", path, *fed, photos / "val/red/0.png")
    words = ["--rounds", 1, "--batch", 1, "--threads", 1, "--runtimes", "onnxruntime"]
    assert "theirs.onnx" in said(capsys, "bench", path, *fed, *words)


def test_what_an_onnx_file_of_anyone_does_not_tell_is_asked_for(tmp_path, photos, capsys):
    path = foreign_onnx(tmp_path / "theirs.onnx", side="s")
    assert "--size PIXELS" in refused(capsys, "validate", path, "--data", photos)
    fixed = foreign_onnx(tmp_path / "fixed.onnx")
    assert "takes pictures of 32 px alone" in refused(capsys, "validate", fixed, "--size", 64, "--data", photos)
    assert "can be run but not changed" in refused(
        capsys, "compress", fixed, "--step", "prune_channels ratio=0.5", "--out", tmp_path / "x.safetensors"
    )


def test_an_onnx_file_of_anyone_becomes_int8(here, tmp_path, photos, capsys):
    onnx = pytest.importorskip("onnx")
    said(capsys, "export", *OWN, "--format", "onnx", "--data", photos, "--out", tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    del model.metadata_props[:]
    onnx.save_model(model, tmp_path / "theirs.onnx")
    words = ["export", tmp_path / "theirs.onnx", *FED, "--format", "onnx", "--precision", "int8", "--data", photos]
    assert "macro F1 on val: 1.0000" in said(capsys, *words)
    assert (
        "int8"
        in json.loads(
            {one.key: one.value for one in onnx.load(tmp_path / "theirs.int8.onnx").metadata_props}["featherweight"]
        )["precision"]
    )
    assert "accuracy 1.0000" in said(capsys, "validate", tmp_path / "theirs.int8.onnx", "--data", photos)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["best.pth"], "holds weights, but not how to build their net"),
        (["my_model.py:Nett", "--weights", "best.pth"], "has no Nett (did you mean Net?)"),
        (["my_model.py:Net", "--weights", "none.pth"], "there are no weights at none.pth"),
        (["timm:lcnet_035", "--weights", "best.pth"], "its weights are of another net"),
        (["timm:lcnet_035", "--weights", "best.pth", "--pretrained"], "give it or --weights, not both"),
        (["my_model.py:Net", "--pretrained"], "--pretrained is for nets of timm, torchvision, pytorchcv"),
        (["my_model.py:Net", "--mean", "0.5,x"], "--mean takes a number of each channel"),
        (["my_model.py:Net", "--std", "0,0,0"], "std must be"),
        (["my_model.py:Net", "--resize", "20", "--size", "32"], "--resize takes"),
        (["my_model.py:Net", "--resize", "40 softly", "--size", "32"], "interpolation must be one of"),
        (["my_model.py:Net", "--classes", "two.txt"], "has 3 outputs, and 2 classes are named"),
        (["my_model.py:Net(num_classes=2)"], "has 2 outputs, and the data have 3 classes"),
    ],
)
def test_what_is_wrong_with_a_net_is_one_line(here, photos, tmp_path, capsys, words, message):
    (here / "two.txt").write_text("blue\nred\n")
    for command in (["validate", "--data", photos], ["compress", "--data", photos, "--step", "fold_norms",
                                                     "--out", tmp_path / "x.safetensors"]):  # fmt: skip
        error = refused(capsys, command[0], *words, *command[1:])
        assert message in error or (command[0] == "compress" and "classes" in error)
        assert error.count("\n") == 1
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.long
def test_a_librarys_net_without_class_names_is_exported_timed_and_asked(tmp_path, photos, capsys):
    out = tmp_path / "lib.safetensors"
    said(capsys, "compress", "timm:lcnet_035", "--step", "prune_channels ratio=0.3", "--size", 64, "--out", out)
    assert "class " in said(capsys, "predict", out, photos / "val/red/0.png")
    said(capsys, "export", out, "--format", "onnx", "--data", photos)
    words = ["--rounds", 1, "--batch", 1, "--threads", 1, "--runtimes", "eager", "onnxruntime"]
    assert "lib.safetensors" in said(capsys, "bench", out, *words)


def test_crops_and_filters_travel_into_exported_files(here, tmp_path, photos, capsys):
    words = [*OWN, "--resize", "40 bicubic", "--format", "onnx", "--data", photos, "--out", tmp_path / "net.onnx"]
    said(capsys, "export", *words)
    photo = photos / "val/green/0.png"
    example = [sys.executable, str(ROOT / "docs/examples/predict_onnx.py"), str(tmp_path / "net.onnx"), str(photo)]
    done = subprocess.run(example, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, name, share = done.stdout.split()
    ours = said(capsys, "predict", tmp_path / "net.onnx", photo, "--format", "csv").splitlines()[1].split(",")
    assert (name, float(share)) == (ours[2], pytest.approx(float(ours[3]), abs=2e-3))


SHORT = ["data.size=32", "data.workers=0", "data.batch_size=16", "data.calibration_images=8", "every.epochs=1"]


def settings(*more):
    return [word for setting in (*SHORT, *more) for word in ("--set", setting)]


def test_a_recipe_takes_any_net_and_any_teacher(here, photos, tmp_path, capsys):
    (here / "recipe.py").write_text(
        "import dataclasses\n"
        "import solution as fw\n"
        "from solution.recipes.catalogue import RECIPES\n"
        "def recipe():\n"
        "    stages = (fw.Stage(name='cut', step=fw.PruneChannels(ratio=0.3)),\n"
        "              fw.Stage(name='taught', step=fw.Distill(epochs=1, lr=0.01, live=True,\n"
        "                       teachers=('my_model.py:Net@best.pth',))))\n"
        "    return dataclasses.replace(RECIPES['waste_teacher'](), name='own', stages=stages, before='cut',\n"
        "                               after='taught', thorough=False, exports=(), report=None)\n"
    )
    words = ["run", "recipe.py", "--data", photos, "--model", "my_model.py:Net@best.pth", "--out", tmp_path / "run"]
    assert "taught" in said(capsys, *words, *settings())
    path = tmp_path / "run" / "after.safetensors"
    assert checkpoint.read_header(path).code == "my_model.py:Net(num_classes=3)"
    assert "val: f1" in said(capsys, "validate", "my_model.py:Net", "--weights", path, "--data", photos)


def test_a_side_that_the_recipes_net_cannot_take_is_one_line(tmp_path, photos, capsys):
    words = ["run", "waste_shufflenet", "--data", photos, "--model", "timm:vit_tiny_patch16_224", *settings()]
    error = refused(capsys, *words, "--out", tmp_path / "r")
    assert "it takes 224: --set data.size=224" in error
    assert error.count("\n") == 1
