"""Nothing calls home: commands run where every connection is refused and written down, with a home folder of their own.

test: none is tried, by whatever a command imports, and the home folder stays empty
control: the libraries alone do try
"""

import ast
import json
import os
import subprocess
import sys

import pytest

from solution import checkpoint
from solution.__main__ import COMMANDS
from solution.models.shufflenet import ShuffleNet
from solution.runtime import ROOT

pytestmark = pytest.mark.long

REFUSING = """
import os, socket

def refuse(*words, **_):
    with open(os.environ["ATTEMPTS"], "a") as file:
        file.write(f"{words}\\n")
    raise OSError("refused")

connect, look_up = socket.socket.connect, socket.getaddrinfo

def look_up_own(*words, **names):
    flags = words[5] if len(words) > 5 else names.get("flags", 0)  # passive: an address to listen at
    return (look_up if flags & socket.AI_PASSIVE else refuse)(*words, **names)

socket.getaddrinfo = look_up_own
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
    own = "from solution.models.yolo import ultralytics_net; ultralytics_net('yolov8n')"
    tried, found, done = refused("-c", f"import solution; {LIBRARIES}; {own}")
    assert done.returncode == 0, done.stderr
    assert tried == []
    assert [name for name in found if "cid" in name or "telemetry" in name] == []


SHORT = ("data.size=32", "data.batch_size=16", "data.workers=0", "data.calibration_images=8", "every.epochs=1",
         "every.warmup_epochs=0", "model.width=0.1")  # fmt: skip
SET = [word for setting in SHORT for word in ("--set", setting)]
WORDS = {
    "data": ["data", "photos"],
    "prepare": ["prepare", "photos", "prepared"],
    "compress": ["compress", "net.safetensors", "--step", "prune_channels ratio=0.3", "--out", "small.safetensors"],
    "shrink": ["shrink", "net.safetensors", "--macs", "80%", "--out", "smaller"],
    "export": ["export", "net.safetensors", "--format", "openvino", "--precision", "int8", "--data", "photos"],
    "inspect": ["inspect", "net.safetensors"],
    "predict": ["predict", "net.safetensors", "photo.png", "--runtime", "openvino"],
    "validate": ["validate", "net.safetensors", "--data", "photos", "--runtime", "onnxruntime"],
    "bench": ["bench", "net.safetensors", "--rounds", "1", "--threads", "1", "--batch", "1",
              "--runtimes", "onnxruntime", "openvino"],
    "serve": ["serve", "net.safetensors", "--host", "192.0.2.1"],  # no address of this machine: it ends
    "score": ["score", "--macs", "1e6", "--f1", "0.7"],
    "run": ["run", "waste_shufflenet", "--data", "photos", "--out", "run", "--exports", "onnxruntime", *SET],
    "report": ["report", "run", "--data", "photos"],
    "search": ["search", "waste_shufflenet", "--data", "photos", "--trials", "1", "--out", "search",
               "--vary", "train.lr=[0.1]", *SET],
    "doctor": ["doctor"],
    "storage": ["storage", "sqlite:///trials.db", "--host", "192.0.2.1"],  # as above
}  # fmt: skip
QUICK = ("data", "prepare", "compress", "inspect", "predict", "validate", "serve", "score", "storage")
"""The others take a minute. `report` is of the run before it."""
SEVERAL = """
import json, sys
from solution.__main__ import main
codes = {words[0]: main(words) for words in json.loads(sys.argv[1])}
print(codes)
sys.exit(not set(codes.values()) <= {0, 2})
"""


@pytest.fixture
def place(tmp_path, photos):
    """A folder with photos, and a net that knows their classes."""
    net = ShuffleNet(units=(1, 1, 1), width=0.3).build(num_classes=3).eval()
    about = {"classes": ("blue", "green", "red"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32}
    checkpoint.save(tmp_path / "net.safetensors", net, checkpoint.header_of(net, **about))
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "photo.png").symlink_to(next((photos / "val").rglob("*.png")))
    return tmp_path


def test_every_command_is_tried():
    assert set(WORDS) == set(COMMANDS), "a new command needs a line here"


@pytest.mark.parametrize("names", [
    pytest.param(QUICK, id="quick"),
    pytest.param(list(WORDS), id="all", marks=pytest.mark.slow),
])  # fmt: skip
def test_no_command_does(refused, place, names):
    tried, found, done = refused("-c", SEVERAL, json.dumps([WORDS[name] for name in names]))
    assert done.returncode == 0, done.stderr
    refusing = {
        "export",
        "serve",
        "storage",
    }  # an untrained net loses everything in int8, and the address is another machine's
    assert {name for name, code in ast.literal_eval(done.stdout.splitlines()[-1]).items() if code} <= refusing
    assert tried == []
    assert [name for name in found if "cid" in name or "telemetry" in name] == []


@pytest.mark.slow
def test_nor_does_the_demo(refused):
    tried, found, done = refused(ROOT / "test_demo.py", "--customized_model", "True", "--eval", "False")
    assert done.returncode == 0, done.stderr
    assert tried == []
    assert [name for name in found if "cid" in name or "telemetry" in name] == []
