"""Commands that are killed or stopped at any moment: nothing lost, nothing half, and in the end the same results.

A child is killed after a share of the time that the whole command takes, drawn from a seed, and begun again by the
words that it says itself.
"""

import contextlib
import json
import os
import random
import re
import signal
import tempfile
import time
from importlib.util import find_spec

import forks
import numpy as np
import pytest
import torch
from forks import ended
from PIL import Image
from safetensors import safe_open

from solution import checkpoint
from solution.__main__ import COMMANDS
from solution.export import files
from solution.locks import claimed
from solution.models.shufflenet import ShuffleNet
from solution.run_folder import read_rows

pytestmark = pytest.mark.long

DATA = ("data.batch_size=8", "data.workers=0")
SHORT = (*DATA, "data.size=16", "data.calibration_images=8", "model.width=0.1", "model.units=2,2,2",
         "prune_layers.units=1,1,1", "train.epochs=2", "before.epochs=1", "after.epochs=1",
         "every.warmup_epochs=0")  # fmt: skip


def settings(*texts):
    return [word for text in texts for word in ("--set", text)]


SET = settings(*SHORT)
PHASES = {
    "run": ["run", "waste_shufflenet", "--data", "photos", "--out", "out", "--exports", "", *SET],
    "compress": ["compress", "net.safetensors", "--step", "prune_channels ratio=0.3", "--step",
                 "train epochs=2 warmup_epochs=0", "--data", "photos", "--out", "out/small.safetensors",
                 *settings(*DATA)],
    "shrink": ["shrink", "net.safetensors", "--macs", "70%", "--for", "eager", "--data", "photos", "--passes", "4",
               "--out", "out", *settings(*DATA)],
    "export": ["export", "net.safetensors", "--format", "packed", "--data", "photos", "--out", "out/net.packed"],
    "onnx": ["export", "net.safetensors", "--format", "onnx", "--data", "photos", "--out", "out/net.onnx"],
    "micro": ["export", "net.safetensors", "--format", "micro", "--data", "photos", "--out", "out/net.cc"],
    "prepare": ["prepare", "photos", "out/prepared"],
    "report": ["report", "finished", "--html", "out/report.html"],
    "search": ["search", "waste_shufflenet", "--data", "photos", "--trials", "2", "--out", "out",
               "--vary", "train.lr=[0.1, 0.2]", "--first-epochs", "1", *SET],
}  # fmt: skip
RESUMED = ("run", "compress", "shrink")
NO_RESULTS = {"seconds", "cpu_ms", "latency_ms", "memory_bytes", "hardware", "timed_on", "commit"}


@pytest.fixture
def short():
    """A folder of a short name, as those for temporary files are: sockets have names of 108 letters at most."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="k") as folder:
        yield folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of 12 x 8 pixels: 8 a class in train, 4 in val, of three classes that differ in color."""
    folder, chance = tmp_path_factory.mktemp("sets") / "small", np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for channel, name in enumerate(("blue", "green", "red")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = chance.integers(0, 60, (12, 8, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def net(photos, tmp_path_factory):
    """A checkpoint that knows the classes."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "tmp").mkdir()
    torch.manual_seed(0)
    net = ShuffleNet(units=(2, 2, 2), width=0.3).build(num_classes=3).eval()
    about = {"classes": ("blue", "green", "red"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 16}
    checkpoint.save(folder / "begun.safetensors", net, checkpoint.header_of(net, **about))
    words = ["compress", "begun.safetensors", "--step", "train epochs=10 lr=0.05 warmup_epochs=0 ema_decay=0",
             "--data", str(photos), "--out", "net.safetensors",
             *settings("data.batch_size=4", "data.workers=0")]  # fmt: skip
    assert ended(forks.begun(words, folder)) == 0, (folder / "said.txt").read_text()
    return folder / "net.safetensors"


@pytest.fixture
def place(tmp_path, photos, net, short):
    """Makes folders with all that the commands read, and an empty `out`."""

    def make(name):
        folder = tmp_path / name
        (folder / "out").mkdir(parents=True)
        (folder / "tmp").symlink_to(tempfile.mkdtemp(dir=short))
        (folder / "photos").symlink_to(photos)
        (folder / "net.safetensors").symlink_to(net)
        if (tmp_path / "finished").exists():
            (folder / "finished").symlink_to(tmp_path / "finished")
        return folder

    return make


def begun(phase, folder, most=None):
    """A process that runs the command in `folder`; `most` bytes for a file."""
    resumed = ["--resume"] if phase in RESUMED and any((folder / "out").iterdir()) else []
    return forks.begun([*PHASES[phase], *resumed], folder, most)


def whole(phase, folder):
    """Run the command to its end. Returns the seconds that it took."""
    start = time.monotonic()
    assert ended(begun(phase, folder)) == 0, (folder / "said.txt").read_text()
    return time.monotonic() - start


def visible(folder):
    """The files that a user would see, and believe to be whole."""
    parts = ((path, path.relative_to(folder).parts) for path in sorted((folder / "out").rglob("*")))
    return [path for path, names in parts if path.is_file() and not any(name.startswith(".") for name in names)]


def assert_nothing_half(folder):
    for path in visible(folder):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                assert list(file.keys())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".packed":
            files.load(path)
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        elif path.suffix in (".png", ".jpg"):
            assert path.read_bytes()[-2:] in (b"\xff\xd9", b"\x60\x82")
    if (folder / "out/prepared").exists():
        assert (folder / "out/prepared/prepare.json").is_file() or list((folder / "out/prepared").glob("*.json"))


def results(phase, folder):
    """What the command has made, without times."""
    found = {}
    for path in visible(folder):
        name = str(path.relative_to(folder))
        if phase == "search":
            if path.suffix == ".py":
                found[name] = None
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found[name] = {key: file.get_tensor(key).tolist() for key in file.keys()}  # noqa: SIM118
        elif path.name == "rows.json":
            rows = read_rows(path.parent)
            found[name] = [{key: value for key, value in vars(row).items() if key not in NO_RESULTS} for row in rows]
        elif phase == "shrink" and path.suffix in (".html", ".svg"):  # they show milliseconds
            found[name] = None
        elif path.suffix not in (".csv", ".json", ".log") and "plots" not in name:
            found[name] = path.read_bytes()
    return found


def assert_nothing_left(folder):
    hidden = [path for path in folder.rglob("*") if path.name.startswith(".") or "fw-" in path.name]
    assert hidden == []
    assert [path.name for path in (folder / "out").iterdir() if path.name.endswith(".work")] == []


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "kills"), [("run", 25), ("compress", 20), ("export", 15), ("prepare", 10),
                                              ("shrink", 12), ("micro", 8), ("report", 5), ("search", 5)])  # fmt: skip
def test_kills_lose_nothing(place, phase, kills):
    if phase == "micro" and find_spec("tflite_micro") is None:
        pytest.skip("tflite_micro is not installed")
    chance = random.Random(phase)
    if phase == "report":
        source = place("source")
        whole("run", source)
        (source / "out").rename(source.parent / "finished")
    undisturbed = place("undisturbed")
    seconds = whole(phase, undisturbed)
    wanted, number, killed = results(phase, undisturbed), 0, 0
    assert wanted
    while killed < kills:
        folder, rows = place(f"try{number}"), 0
        number += 1
        code = None
        while code != 0:
            over = (folder / "out/prepared").exists()  # killed when all was written
            child = begun(phase, folder)
            if over:
                assert ended(child) == 2
                assert "exists already; nothing is overwritten" in (folder / "said.txt").read_text()
                break
            if killed < kills:
                time.sleep(chance.random() * seconds)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            code = ended(child)
            assert code in (0, -signal.SIGKILL), (folder / "said.txt").read_text()
            killed += code != 0
            assert_nothing_half(folder)
            there = len(read_rows(folder / "out"))
            assert there >= rows
            rows = there
        assert results(phase, folder) == wanted
        assert_nothing_left(folder)


@pytest.mark.parametrize("most", [0, 300])
@pytest.mark.parametrize("phase", ["compress", "export", "prepare", "run"])
def test_a_disk_without_room_costs_a_line_and_leaves_nothing_half(place, phase, most):
    folder = place("try")
    child = begun(phase, folder, most)
    with os.fdopen(os.dup(child.errors.fileno())) as said:
        lines = said.read().splitlines()
    code = ended(child)
    assert code == 2, lines
    errors = [line for line in lines if not line.startswith("warning: ")]
    assert len(errors) == 1, lines
    assert errors[0].startswith("error: ")
    assert re.search("larger than is allowed|has no room|takes temporary files|cannot be written", errors[0])
    assert_nothing_half(folder)
    assert [path.name for path in folder.rglob("*") if path.name.startswith(".") or "fw-" in path.name] == []
    whole(phase, folder)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase not in ("search", "onnx", "micro")])
def test_what_another_process_writes_is_refused(place, phase, tmp_path):
    if phase == "report":
        (tmp_path / "finished").mkdir()
        row = {"step": "a", "macs": 5, "params": 3, "bytes": 9}
        (tmp_path / "finished/rows.json").write_text(json.dumps([row]))
    folder = place("try")
    words = PHASES[phase]
    target = folder / (words[-1] if phase in ("prepare", "report") else words[words.index("--out") + 1])
    with claimed(target):
        assert ended(begun(phase, folder)) == 2
    assert f"is being written by process {os.getpid()}, started " in (folder / "said.txt").read_text()
    assert visible(folder) == []


LANDMARKS = {
    "run": lambda folder: (folder / "out/train/training.safetensors").exists(),
    "compress": lambda folder: any((folder / "out").glob("*.work/*/training.safetensors")),
    "export": lambda folder: any((folder / "tmp").iterdir()) and any((folder / "out").glob(".*")),
    "shrink": lambda folder: any((folder / "out/work").rglob("training.safetensors")),
    "prepare": lambda folder: any((folder / "out").glob(".prepared.fw-*/*")),
    "search": lambda folder: any((folder / "out/workers").glob("*")),
}


@pytest.mark.parametrize(("phase", "number"), [
    *((phase, signal.SIGTERM) for phase in ("run", "compress", "export", "prepare")),
    *(pytest.param(phase, signal.SIGTERM, marks=pytest.mark.slow) for phase in ("shrink", "search")),
    pytest.param("compress", signal.SIGINT, marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_a_signal_stops_a_command_says_how_to_go_on_and_leaves_nothing(place, phase, number):
    for attempt in range(20):  # a command may be over before the signal reaches it
        folder = place(f"try{attempt}")
        child = begun(phase, folder)
        while not LANDMARKS[phase](folder) and child.is_alive():
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
        code = ended(child)
        if code != 0:
            break
    assert code == 128 + number, (folder / "said.txt").read_text()
    advice = getattr(COMMANDS[phase], "GO_ON", "")
    assert (folder / "said.txt").read_text().rstrip().endswith(f"stopped{f'; {advice}' if advice else ''}")
    assert list((folder / "tmp").iterdir()) == []
    assert [path.name for path in (folder / "out").rglob(".*")] == []
    assert_nothing_half(folder)
    if phase in RESUMED:
        assert LANDMARKS[phase](folder), "what was trained is kept"
    undisturbed = place("undisturbed")
    whole(phase, undisturbed)
    whole(phase, folder)
    assert results(phase, folder) == results(phase, undisturbed)
    assert_nothing_left(folder)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["run", "compress", "onnx", "shrink", "search"])
def test_a_signal_at_any_moment_ends_a_command_in_time(place, phase):
    """Ten moments drawn from a seed, both signals in turns; `-s` shows the seconds."""
    chance, taken = random.Random(phase), []
    seconds = whole(phase, place("undisturbed"))
    for attempt in range(10):
        folder, number = place(f"try{attempt}"), (signal.SIGTERM, signal.SIGINT)[attempt % 2]
        child = begun(phase, folder)
        time.sleep(max(0.2, chance.random() * seconds))  # before, it has not begun to listen
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
        sent = time.monotonic()
        assert ended(child) in (0, 128 + number), (folder / "said.txt").read_text()
        taken.append(time.monotonic() - sent)
        assert_nothing_half(folder)
        assert list((folder / "tmp").iterdir()) == []
    print(f"{phase}: {' '.join(f'{each:.2f}' for each in sorted(taken))} s")
    assert max(taken) < 10, "two seconds are promised; a busy machine may take longer"
