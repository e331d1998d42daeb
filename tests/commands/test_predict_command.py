"""``python -m solution predict``: photos in, class names and probabilities out."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from solution import checkpoint
from solution.__main__ import main
from solution.export import files
from solution.export.runtimes import form_for
from solution.models.shufflenet import ShuffleNet
from solution.runtime import ROOT


@pytest.fixture(scope="module")
def net_file(tmp_path_factory):
    """A net of three classes that is sure of what it says."""
    torch.manual_seed(0)
    net = ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3).eval()
    with torch.no_grad():
        net.output.weight *= 20
    about = {"classes": ("blue", "green", "red"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32}
    path = tmp_path_factory.mktemp("nets") / "net.safetensors"
    checkpoint.save(path, net, checkpoint.header_of(net, **about))
    return path


@pytest.fixture(scope="module")
def onnx_file(net_file):
    return form_for(net_file, "onnxruntime", net_file.parent)


def said(capsys, *words):
    assert main(["predict", *map(str, words)]) == 0
    return capsys.readouterr().out


def told(capsys, *words):
    """{image: {class: probability}}"""
    answers = json.loads(said(capsys, *words, "--format", "json"))
    return {answer["image"]: {row["class"]: row["probability"] for row in answer["classes"]} for answer in answers}


def test_the_table_names_the_likeliest_classes(net_file, photos, capsys):
    lines = said(capsys, net_file, photos / "val", "--top", "2").splitlines()
    assert len(lines) == 18
    image, first, share, second, less = lines[0].split()
    assert image == str(photos / "val/blue/0.png")
    assert {first, second} < {"blue", "green", "red"}
    assert float(share.rstrip("%")) >= float(less.rstrip("%"))


def test_csv_and_json_say_the_same(net_file, photos, tmp_path, capsys):
    out = tmp_path / "answers" / "all.csv"
    assert "18 answers" in said(capsys, net_file, photos / "val", "--format", "csv", "--out", out)
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    answers = told(capsys, net_file, photos / "val")
    assert len(rows) == 54
    for row in rows:
        assert answers[row["image"]][row["class"]] == pytest.approx(float(row["probability"]), abs=1e-6)
    assert all(sum(classes.values()) == pytest.approx(1) for classes in answers.values())


def test_packed_files_and_runtimes_say_the_same(net_file, onnx_file, photos, tmp_path, capsys):
    files.save(tmp_path / "net.packed", *files.load(net_file))
    wanted = told(capsys, net_file, photos / "val")
    assert told(capsys, tmp_path / "net.packed", photos / "val") == wanted
    for words in ((onnx_file,), (net_file, "--runtime", "openvino")):
        answers = told(capsys, words[0], photos / "val", *words[1:])
        for image, classes in wanted.items():
            assert classes == pytest.approx(answers[image], abs=1e-4)


def test_what_cannot_be_read_is_named_after_the_rest_is_answered(net_file, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert main(["predict", str(net_file), str(tmp_path / "broken.png"), str(photos / "val/red")]) == 2
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 6
    assert "unreadable: " in shown.err
    assert "broken.png: not an image" in shown.err
    assert shown.err.endswith("error: 1 of 7 images cannot be read: mend or leave out those named above\n")
    assert main(["predict", str(net_file), str(tmp_path / "*.png"), "absent.jpg"]) == 2
    assert "error: 2 of 2 images cannot be read" in capsys.readouterr().err


def test_a_wildcard_that_matches_nothing_is_an_error_beside_answers(net_file, photos, tmp_path, capsys):
    out = tmp_path / "answers.csv"
    words = [str(photos / "val/red"), str(tmp_path / "*.webp"), "--format", "csv", "--out", str(out)]
    assert main(["predict", str(net_file), *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == f"6 answers: {out}\n"
    assert len(out.read_text().splitlines()) == 1 + 6 * 3
    assert "*.webp: no such file, and nothing that it matches" in shown.err
    assert "error: 1 of 7 images cannot be read" in shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--top", "0"), "--top must be at least 1, got 0"),
        (("--runtime", "warp"), "runtime must be one of eager, compile, onnxruntime, openvino"),
    ],
)
def test_bad_wishes_are_explained(net_file, photos, words, message, capsys):
    assert main(["predict", str(net_file), str(photos / "val"), *words]) == 2
    assert message in capsys.readouterr().err


def test_an_exported_file_runs_in_its_own_runtime_alone(onnx_file, photos, capsys):
    assert main(["predict", str(onnx_file), str(photos / "val"), "--runtime", "eager"]) == 2
    assert "runs in onnxruntime, not in eager: give the checkpoint that it is of" in capsys.readouterr().err


def smooth_photos(folder, count):
    """Names of photos in which neighboring pixels are alike, as in real ones."""
    chance = np.random.default_rng(0)
    names = [str(folder / f"{number}.jpg") for number in range(count)]
    for name in names:
        coarse = Image.fromarray(chance.integers(0, 256, (4, 3, 3), dtype=np.uint8))
        coarse.resize((96, 128), Image.Resampling.BICUBIC).save(name, quality=95)
    return names


def test_the_example_needs_nothing_of_this_project(net_file, onnx_file, tmp_path, capsys):
    example = ROOT / "docs" / "examples" / "predict_onnx.py"
    assert len(example.read_text().splitlines()) <= 30
    images = smooth_photos(tmp_path, 6)
    # Another working directory and no paths from outside: `import solution` would fail there.
    words = [sys.executable, "-I", str(example), str(onnx_file), *images]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = told(capsys, net_file, *images)
    lines = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert [image for image, _, _ in lines] == images
    for image, name, share in lines:
        # Pillow and OpenCV average pixels a little differently when they shrink a photo.
        assert answers[image][name] == pytest.approx(float(share), abs=0.05)


def test_names_of_photos_never_command_the_terminal(capsys, net_file, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a\x1b]0;x\x07\u202e.png")
    (tmp_path / "b\x1b[2J.png").write_bytes(b"none")
    for format_ in ("table", "csv", "json"):
        assert main(["predict", str(net_file), str(tmp_path), "--format", format_]) == 2
        captured = capsys.readouterr()
        assert "u202e.png" in captured.out
        assert "b\\x1b[2J.png" in captured.err
        assert not {"\x1b", "\x07", "\u202e"} & set(captured.out + captured.err)
