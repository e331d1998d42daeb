"""`test_demo.py` as a user types it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from solution import checkpoint
from solution.contracts import InputError
from solution.demo import MAIN_SET, PRETRAINED, _beside, _forms
from solution.export import files
from solution.runtime import ROOT

pytestmark = pytest.mark.long

CORE = """
import runpy, sys
sys.modules.update(onnxruntime=None, openvino=None)
sys.argv[0] = "test_demo.py"
runpy.run_path("test_demo.py", run_name="__main__")
"""


def demo(*words, start=("-c", CORE)):
    """The demo on the core install, or on all that is here: start=["test_demo.py"]."""
    return subprocess.run([sys.executable, *start, *map(str, words)], cwd=ROOT, capture_output=True, text=True)


def test_after_stands_beside_before_with_differences(photos, finished, tmp_path):
    done = demo("--customized_model", True, "--eval", True, "--data", photos, "--weights", finished[0],
                "--json", tmp_path / "figures.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("Before", "After", "Difference", "macro F1", "colors, 18 images"))
    assert all(words in done.stdout for words in ("packed", "ms of one image", "PyTorch eager", "quickest calls"))
    said = json.loads((tmp_path / "figures.json").read_text())
    assert (said["data"], said["images"], list(said["models"])) == ("colors", 18, ["before", "after"])
    keys = {"macs", "macs_dispatched", "params", "bytes", "packed_bytes", "f1", "accuracy", "score", "latency_ms"}
    assert all(set(figures) == {*keys, "exported"} for figures in said["models"].values())
    assert [*said["models"]["after"]["latency_ms"]] == ["eager"]
    for runtime in ("onnxruntime", "openvino"):
        lacks = f"{runtime} is left out: the runtime {runtime} needs {runtime}, which is not here"
        assert f'{lacks}: pip install -e ".[runtimes]"' in done.stderr


def test_exported_files_are_judged_and_timed_beside_their_nets(photos, finished, tmp_path):
    for role in ("before", "after"):
        shutil.copy(finished[0] / f"{role}.safetensors", tmp_path)
    files.save(tmp_path / "after.packed", *files.load(tmp_path / "after.safetensors"))
    done = demo("--data", photos, "--weights", tmp_path, "--json", "-", start=["test_demo.py"])
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "thread(s)" in said["timed_on"]
    before, after = said["models"].values()
    assert list(before["exported"]) == ["onnxruntime", "openvino"]
    assert list(after["exported"]) == ["onnxruntime", "openvino", "after.packed"]
    assert after["exported"]["after.packed"]["bytes"] == after["packed_bytes"] < after["bytes"]
    for figures in (before, after):
        assert list(figures["latency_ms"]) == ["eager", "onnxruntime", "openvino"]
        assert all(ms > 0 for ms in figures["latency_ms"].values())
        for shipped in figures["exported"].values():
            assert (shipped["f1"], shipped["accuracy"]) == (figures["f1"], figures["accuracy"])


def test_a_packed_file_of_another_task_is_none_of_the_net(finished, tmp_path):
    path = Path(shutil.copy(finished[0] / "before.safetensors", tmp_path))
    assert _beside(path) == {}
    shutil.copy(PRETRAINED / MAIN_SET / "after.packed", tmp_path / "before.packed")
    assert _beside(path) == {}
    files.save(tmp_path / "before.packed", *files.load(path))
    assert _beside(path) == {"before.packed": tmp_path / "before.packed"}
    assert _beside(tmp_path / "before.packed") == {}


def test_a_form_that_cannot_be_made_is_left_out(finished, tmp_path, monkeypatch, capsys):
    def form_for(path, runtime, folder):
        if runtime == "openvino":
            raise InputError("no openvino file")
        return path

    monkeypatch.setattr("solution.export.runtimes.form_for", form_for)
    path = finished[0] / "before.safetensors"
    assert dict(_forms(path, ("onnxruntime", "openvino"), tmp_path)) == {"onnxruntime": path}
    assert "before.safetensors in openvino is left out: no openvino file" in capsys.readouterr().err


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
    after = json.loads(done.stdout)["models"]["after"]
    assert "f1" not in after
    assert after["latency_ms"]["eager"] > 0
    assert 0 < after["packed_bytes"] < after["bytes"]


def test_a_set_that_has_a_val_split_alone_can_be_judged(photos, finished, tmp_path):
    shutil.copytree(photos / "val", tmp_path / "mine" / "val")
    done = demo("--data", tmp_path / "mine", "--weights", finished[0], "--json", "-")
    assert json.loads(done.stdout)["images"] == 18, done.stderr


def test_the_newest_run_that_knows_the_classes_is_judged_where_no_committed_net_does(photos, finished, tmp_path):
    for name, source in (("older", "before"), ("newer", "after")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        for role in ("before", "after"):
            shutil.copy(finished[0] / f"{source}.safetensors", folder / f"{role}.safetensors")
    os.utime(tmp_path / "runs" / "older" / "before.safetensors", (1, 1))
    code = CORE.replace("test_demo.py", str(ROOT / "test_demo.py"))
    words = [sys.executable, "-c", code, "--customized_model", "False", "--data", photos, "--json", "-"]
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "judged is the newest run that does: runs/newer" in done.stderr
    wanted = checkpoint.read_header(finished[0] / "after.safetensors").figures["macs"]
    assert json.loads(done.stdout)["models"]["before"]["macs"] == wanted


def test_packed_files_serve_where_there_are_no_checkpoints(finished, tmp_path):
    for role in ("before", "after"):
        files.save(tmp_path / f"{role}.packed", *files.load(finished[0] / f"{role}.safetensors"))
    wanted = json.loads(demo("--eval", "False", "--weights", finished[0], "--json", "-").stdout)["models"]
    models = json.loads(demo("--eval", "False", "--weights", tmp_path, "--json", "-").stdout)["models"]
    for role in ("before", "after"):
        assert models[role].pop("bytes") < 0.9 * wanted[role].pop("bytes")
        assert models[role].pop("latency_ms").keys() == wanted[role].pop("latency_ms").keys()
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
