"""Nothing calls home: commands run where every connection is refused and written down, with a home folder of their own.

test: none is tried, by whatever a command imports, and the home folder stays empty
control: the libraries alone do try
"""

import os
import subprocess
import sys

import pytest

from solution.demo import PRETRAINED
from solution.runtime import ROOT

NET = PRETRAINED / "rendered/after.safetensors"
REFUSING = """
import os, socket

def refuse(*words, **_):
    with open(os.environ["ATTEMPTS"], "a") as file:
        file.write(f"{words}\\n")
    raise OSError("refused")

connect = socket.socket.connect
socket.getaddrinfo = refuse
socket.socket.connect = lambda own, place: connect(own, place) if own.family == socket.AF_UNIX else refuse(place)
"""


@pytest.fixture
def refused(tmp_path):
    """Runs words in Python: (what was tried to be reached, what lies in the home folder, the finished process)."""
    (tmp_path / "refusing").mkdir()
    (tmp_path / "refusing/sitecustomize.py").write_text(REFUSING)
    (tmp_path / "home").mkdir()

    def run(*words):
        paths = os.pathsep.join([str(tmp_path / "refusing"), str(ROOT)])
        environment = {name: value for name, value in os.environ.items() if name not in ("CI", "DO_NOT_TRACK")}
        environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": paths, "ATTEMPTS": str(tmp_path / "attempts"),
                        "SOLUTION_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}  # fmt: skip
        for name in [name for name in environment if "TELEMETRY" in name or name == "NO_ALBUMENTATIONS_UPDATE"]:
            del environment[name]
        done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False,
                              env=environment, cwd=tmp_path)  # fmt: skip
        attempts = tmp_path / "attempts"
        tried = attempts.read_text().splitlines() if attempts.exists() else []
        found = [path.name for path in (tmp_path / "home").rglob("*") if path.is_file()]
        return tried, found, done

    return run


LIBRARIES = "import openvino, nncf, albumentations, mlflow, huggingface_hub"


def test_the_libraries_alone_do_call(refused):
    tried, found, done = refused("-c", LIBRARIES)
    assert done.returncode == 0, done.stderr
    assert any("google-analytics" in line for line in tried)
    assert found != []


def test_after_this_project_is_imported_none_does(refused):
    own = "from solution.models.detectors import ultralytics_net; ultralytics_net('yolov8n')"
    tried, found, done = refused("-c", f"import solution; {LIBRARIES}; {own}")
    assert done.returncode == 0, done.stderr
    assert tried == []
    assert [name for name in found if "cid" in name or "telemetry" in name] == []


COMMANDS = {
    "predict": ("predict", NET, "photo.png", "--runtime", "openvino"),
    "export": ("export", NET, "--format", "openvino", "--precision", "int8", "--data", "photos", "--out", "net.xml"),
    "bench": ("bench", NET, "--rounds", "1", "--threads", "1", "--batch", "1", "--runtimes", "onnxruntime", "openvino"),
    "inspect": ("inspect", NET),
    "data": ("data", "photos"),
    "compress": ("compress", NET, "--step", "prune_channels ratio=0.3", "--out", "small.safetensors"),
    "run": ("run", "waste_shufflenet", "--data", "photos", "--out", "run", "--set", "every.step.epochs=1"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.slow
def test_no_command_does(refused, photos, tmp_path, words):
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "photo.png").symlink_to(next((photos / "val").rglob("*.png")))
    tried, found, done = refused("-m", "solution", *words)
    assert done.returncode in (0, 2), done.stderr  # other classes than the photos' are refused after all imports
    assert tried == []
    assert [name for name in found if "cid" in name or "telemetry" in name] == []


@pytest.mark.slow
def test_nor_does_the_demo(refused):
    tried, found, done = refused(ROOT / "test_demo.py", "--customized_model", "True", "--eval", "False")
    assert done.returncode == 0, done.stderr
    assert tried == []
    assert [name for name in found if "cid" in name or "telemetry" in name] == []
