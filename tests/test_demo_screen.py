"""`test_demo.py` as a user types it."""

import json
import shutil
import subprocess
import sys

import pytest

from solution.export import files
from solution.runtime import ROOT


def demo(*words):
    return subprocess.run([sys.executable, "test_demo.py", *map(str, words)], cwd=ROOT, capture_output=True, text=True)


def test_after_stands_beside_before_with_differences(photos, finished, tmp_path):
    done = demo("--customized_model", True, "--eval", True, "--data", photos, "--weights", finished[0],
                "--json", tmp_path / "figures.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("Before", "After", "Difference", "macro F1", "colours, 18 images"))
    said = json.loads((tmp_path / "figures.json").read_text())
    assert (said["data"], said["images"], list(said["models"])) == ("colours", 18, ["before", "after"])
    keys = {"macs", "macs_dispatched", "params", "bytes", "f1", "accuracy", "score"}
    assert all(set(figures) == keys for figures in said["models"].values())


def test_false_means_before_alone(photos, finished):
    done = demo(
        "--customized_model", "False", "--eval", "True", "--data", photos, "--weights", finished[0], "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["models"]) == ["before"]


def test_the_figures_are_those_of_the_run(photos, finished):
    rows = {row["step"]: row for row in json.loads((finished[0] / "rows.json").read_text())}
    models = json.loads(demo("--data", photos, "--weights", finished[0], "--json", "-").stdout)["models"]
    for role in ("before", "after"):
        for name in ("macs", "macs_dispatched", "params", "bytes", "score"):
            assert models[role][name] == rows[role][name]
        assert models[role]["f1"] == rows[role]["quality"]["f1"]


def test_cost_alone_touches_no_data(finished, tmp_path):
    done = demo("--eval", "False", "--weights", finished[0], "--data", tmp_path / "absent", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert "f1" not in json.loads(done.stdout)["models"]["after"]


def test_a_set_that_has_a_val_split_alone_can_be_judged(photos, finished, tmp_path):
    shutil.copytree(photos / "val", tmp_path / "mine" / "val")
    done = demo("--data", tmp_path / "mine", "--weights", finished[0], "--json", "-")
    assert json.loads(done.stdout)["images"] == 18, done.stderr


def test_packed_files_serve_where_there_are_no_checkpoints(finished, tmp_path):
    for role in ("before", "after"):
        files.save(tmp_path / f"{role}.packed", *files.load(finished[0] / f"{role}.safetensors"))
    wanted = json.loads(demo("--eval", "False", "--weights", finished[0], "--json", "-").stdout)["models"]
    models = json.loads(demo("--eval", "False", "--weights", tmp_path, "--json", "-").stdout)["models"]
    for role in ("before", "after"):
        assert models[role].pop("bytes") < 0.9 * wanted[role].pop("bytes")
    assert models == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "{photos}"), "python -m solution run waste_shufflenet"),
        (("--data", "{photos}", "--weights", "{photos}"), "before.safetensors"),
        (("--data", "nowhere"), "nowhere"),
        (("--device", "warp", "--data", "{photos}", "--weights", "{out}"), "no device 'warp'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_code_2(photos, finished, words, message):
    done = demo(*(word.format(photos=photos, out=finished[0]) for word in words))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_true_and_false_are_the_only_words(photos):
    done = demo("--customized_model", "no")
    assert done.returncode == 2
    assert "say True or False, not 'no'" in done.stderr
