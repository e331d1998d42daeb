"""What is typed wrong is answered by what to type instead: one line, exit code 2, nothing written."""

import os

import numpy as np
import pytest
import torch
from models.foreign import clever, net_of, write_code
from PIL import Image

from solution import checkpoint
from solution.__main__ import main
from solution.models.classifiers import Classifier
from solution.text import did_you_mean

CODE = """
from torch import nn

raise SystemExit("this file is read, never run")

class Small(nn.Module):
    pass

class Large(Small, nn.Module):
    pass

class Settings:
    pass
"""
FED = ["--size", "32", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with my_model.py and weights of a net of it that knows the classes of `photos`."""
    monkeypatch.chdir(tmp_path)
    torch.save(clever(net_of(write_code(tmp_path))).state_dict(), "best.pth")
    return tmp_path


def refused(capsys, *words):
    os.environ.pop("FEATHERWEIGHT_NAMED_CODE", None)
    assert main([str(word) for word in words]) == 2
    *notes, line = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in note for note in notes)
    return line


def said(capsys, *words):
    os.environ.pop("FEATHERWEIGHT_NAMED_CODE", None)
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr()


def folder_of(root, names):
    """Photos of these classes."""
    chance = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def named_weights(path, **beside):
    torch.save({"state_dict": torch.load("best.pth"), **beside}, path)
    return path


# MODEL


@pytest.mark.parametrize("name", ["code.py", "code.py/Small", "code.py Small"])
def test_a_file_of_code_alone_lists_its_nets_without_running_it(here, capsys, name):
    (here / "code.py").write_text(CODE)
    line = refused(capsys, "inspect", name)
    assert "code.py:Small or code.py:Large" in line
    assert "Settings" not in line


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("def make():\n    pass", "code.py:make"),
        ("class Net(Base):\n    pass", "code.py:Net"),
        ("class Net(", "code.py cannot be read as Python"),
        ("", "code.py:NAME"),
    ],
)
def test_other_files_of_code_are_read_as_far_as_they_can_be(here, capsys, text, wanted):
    (here / "code.py").write_text(text)
    assert wanted in refused(capsys, "inspect", "code.py")


def test_two_colons_are_as_good_as_one(here, capsys):
    assert "stem.0" in said(capsys, "inspect", "my_model.py::Net", "--weights", "best.pth", *FED).out


@pytest.mark.parametrize("data", [True, False])
def test_weights_without_a_head_ask_for_a_new_one(here, photos, capsys, data):
    state = torch.load("best.pth")
    head = list(state)[-1].rpartition(".")[0]
    torch.save({name: value for name, value in state.items() if not name.startswith(head)}, "trunk.pth")
    words = ["compress", "my_model.py:Net", "--weights", "trunk.pth", "--step", "fold_norms", "--out", "out.packed"]
    line = refused(capsys, *words, *FED, *(["--data", photos] if data else []))
    assert f"trunk.pth holds no weights of {head}" in line
    assert "--new-head --step train" in line
    assert "None" not in line
    assert not (here / "out.packed").exists()


def test_random_weights_are_called_so_with_the_flag_that_names_trained_ones(here, capsys):
    assert "drawn at random; name trained ones with --weights FILE\n" in said(capsys, "inspect", "my_model.py:Net").out
    assert "--weights FILE or --pretrained" in said(capsys, "inspect", "timm:lcnet_035").out


# How it is fed.


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--mean", "0.5"], "mean has 1 number(s) and std 3: both take one of each channel, three for color"),
        (["--std", "0.5"], "mean has 3 number(s) and std 1"),
        (["--mean", "0.5", "--std", "0.5"], "takes pictures of 3 channel(s), and mean and std are of 1"),
        (["--mean", "0.5,0.5"], "--mean takes a number of each channel, three for color"),
        (["--size", "0"], "--size is the side of the input in pixels, 1 or more, got 0: leave it out"),
        (["--size", "-4"], "--size is the side of the input in pixels, 1 or more, got -4"),
    ],
)
def test_mean_std_and_size_say_how_many_and_how_large(here, capsys, flags, wanted):
    assert wanted in refused(capsys, "inspect", "my_model.py:Net", "--weights", "best.pth", *flags)


def test_shrink_calls_the_side_by_its_own_flag(here, photos, capsys):
    line = refused(capsys, "shrink", "timm:vit_tiny_patch16_224", "--pixels", 64, "--data", photos, "--out", "out")
    assert line.endswith("it takes 224: --pixels 224")


def test_a_side_that_is_too_small_is_answered_with_the_nets_own(here, capsys):
    (here / "deep.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(8), nn.MaxPool2d(4), nn.Flatten(),\n"
        "                         nn.Linear(4, 3))\n"
    )
    assert "it takes 64: --size 64" in refused(capsys, "inspect", "deep.py:net", "--size", 8)
    checkpoint.save(here / "net.safetensors", *_saved("timm:vit_tiny_patch16_224", 224))
    assert "it takes 224: --size 224" in refused(capsys, "predict", "net.safetensors", "x.png", "--size", 96)


def _saved(name, size):
    net = Classifier(name=name).build(3)
    return net, checkpoint.header_of(net, classes=("blue", "green", "red"), mean=(0.5,) * 3, std=(0.5,) * 3, size=size)


def test_another_side_than_a_checkpoint_was_trained_with_is_one_warning(here, photos, capsys):
    checkpoint.save(here / "net.safetensors", *_saved("timm:lcnet_035", 32))
    words = ["export", "net.safetensors", "--format", "packed", "--data", photos]
    found = said(capsys, *words, "--size", 64)
    assert [line for line in found.err.splitlines() if line.startswith("warning")] == [
        "warning: --size 64 is not the 32 px that the net was trained with, which may cost quality: judge it"
    ]
    assert "warning" not in said(capsys, *words, "--size", 32).err


# Classes.


@pytest.mark.parametrize(
    "beside",
    [
        {"classes": ["cat", "dog", "owl"]},
        {"names": {2: "owl", 0: "cat", 1: "dog"}},
        {"meta": {"class_to_idx": {"owl": 2, "dog": 1, "cat": 0}}},
    ],
)
@pytest.mark.parametrize("command", ["validate", "compress"])
def test_photos_of_another_set_are_told_by_the_names_beside_the_weights(here, photos, capsys, beside, command):
    model = ["my_model.py:Net", "--weights", named_weights(here / "named.pth", **beside), *FED]
    own = ["--step", "fold_norms", "--out", "out.safetensors"] if command == "compress" else []
    line = refused(capsys, command, *model, "--data", photos, *own)
    assert "the net knows the classes cat, dog, owl; the data have blue, green, red, of which it knows none" in line
    some = folder_of(here / "some", ("cat", "dog", "emu"))
    assert "of which it knows no emu" in refused(capsys, command, *model, "--data", some, *own)


@pytest.mark.parametrize("names", [["red", "green", "blue"], ["Green", "BLUE", "red"], ["Blue", "Green", "RED"]])
def test_names_in_another_order_or_in_other_capitals_are_the_same_classes(here, photos, capsys, names):
    state = torch.load("best.pth")
    order = [("blue", "green", "red").index(name.lower()) for name in names]
    state |= {name: value[order] for name, value in state.items() if name.startswith("head.")}
    torch.save({"state_dict": state, "classes": names}, "own.pth")
    model = ["my_model.py:Net", "--weights", "own.pth", *FED]
    assert "accuracy 1.0000" in said(capsys, "validate", *model, "--data", photos).out
    steps = ["--step", "prune_channels ratio=0.2", "--step", "train epochs=1 lr=1e-4 warmup_epochs=0 ema_decay=0"]
    out = said(capsys, "compress", *model, "--data", photos, *steps, "--out", "small.safetensors").out
    assert "accuracy 1.0000" in out
    kept = checkpoint.read_header(here / "small.safetensors")
    assert kept.classes == tuple(name.lower() for name in names)
    assert kept.figures["accuracy"] > 0.9


def test_without_names_the_photos_own_are_shown(here, photos, capsys):
    model = ["my_model.py:Net", "--weights", "best.pth", *FED]
    out = said(capsys, "compress", *model, "--data", photos, "--step", "fold_norms", "--out", "out.safetensors").out
    assert "the net names none; they are taken to be, in this order, blue, green, red" in out
    others = folder_of(here / "others", ("car", "bus", "van"))
    out = said(capsys, "validate", *model, "--data", others).out
    assert "at chance: " in out
    assert "was it trained on bus, car, van, in this order?" in out


# Files.


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.5, 0.9, 0.999])
def test_weights_that_were_cut_off_are_called_so(here, capsys, zipped, share):
    torch.save({"a": torch.zeros(300, 300)}, "whole.pth", _use_new_zipfile_serialization=zipped)
    content = (here / "whole.pth").read_bytes()
    (here / "cut.pth").write_bytes(content[: max(4, int(share * len(content)))])
    line = refused(capsys, "inspect", "my_model.py:Net", "--weights", "cut.pth")
    assert "cut.pth is damaged or cut off after" in line
    assert not {"Errno", "miniz"} & set(line.replace("[", " ").split())


# Names.


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["shrnk"], "there is no command 'shrnk' (did you mean shrink?)"),
        (["xyz"], "there is no command 'xyz'; there are: data, "),
        (["run", "--lst"], "run has no --lst (did you mean --list?)"),
        (["export", "net.safetensors", "--fromat", "onnx"], "export has no --fromat (did you mean --format?)"),
        (["compress", "net", "--out", "x", "--wieghts=a.pth"], "compress has no --wieghts (did you mean --weights?)"),
    ],
)
def test_unknown_commands_and_flags_are_answered_with_close_ones(capsys, words, wanted):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["run", "waste_shuflenet"], "there is no recipe 'waste_shuflenet' (did you mean waste_shufflenet?)"),
        (["run", "four_model"], "(did you mean four_models?)"),
        (["run", "waste_teacher", "--set", "data.sise=3"], "(did you mean data.size?)"),
        (["compress", "x", "--out", "y", "--step", "prune_chanels"], "(did you mean prune_channels?)"),
        (["compress", "x", "--out", "y", "--step", "prune_channels rato=1"], "(did you mean ratio?)"),
        (["compress", "x", "--out", "y", "--step", "train", "--set", "trian.lr=1"], "(did you mean train?)"),
        (["export", "x.safetensors", "--format", "onx"], "(did you mean onnx?)"),
    ],
)
def test_unknown_names_are_answered_with_close_ones(here, capsys, words, wanted):
    assert wanted in refused(capsys, *words)


def test_flags_that_are_short_for_one_and_words_behind_two_dashes_stay_what_they_are(here, capsys):
    assert said(capsys, "inspect", "my_model.py:Net", "--weight", "best.pth", *FED).out
    assert "there is no file --odd" in refused(capsys, "inspect", "--", "--odd")


def test_close_names_are_found_in_any_case_and_far_ones_are_not_offered():
    assert did_you_mean("net", ["Net", "Other"]) == " (did you mean Net?)"
    assert did_you_mean("zzz", ["Net", "Other"]) == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *((["export", "a.safetensors", "--format", "onnx", f"--max-loss={loss}"], "max_loss is a fraction of 1")
          for loss in ("nan", "inf", "-0.1", "1e9")),
        *((["storage", "sqlite:///trials.db", f"--port={port}"], "--port must be 1 to 65535")
          for port in (-1, 0, 65_536, 10**9)),
    ],
)  # fmt: skip
def test_impossible_numbers_are_named(here, capsys, words, said):
    before = sorted(here.iterdir())
    assert said in refused(capsys, *words)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "waste_shufflenet", "--out", ""], "the value of --out is empty"),
        (["run", "waste_shufflenet", "--out="], "the value of --out is empty"),
        (["predict", "net.onnx", ""], "word 3 of the command is empty"),
        (["prepare", "", "there"], "word 2 of the command is empty"),
    ],
)
def test_an_empty_word_is_no_path(here, capsys, words, said):
    before = sorted(here.iterdir())
    assert said in refused(capsys, *words)
    assert sorted(here.iterdir()) == before
