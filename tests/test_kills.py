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

import forks
import pytest
import torch
from forks import ended
from safetensors import safe_open

from solution import checkpoint
from solution.__main__ import COMMANDS
from solution.export import files
from solution.locks import claimed
from solution.models.shufflenet import ShuffleNet
from solution.run_folder import read_rows

SHORT = ("data.size=32", "data.batch_size=16", "data.workers=0", "data.calibration_images=8", "model.width=0.1",
         "train.epochs=3", "before.epochs=1", "after.epochs=2", "every.warmup_epochs=0")  # fmt: skip
SET = [word for setting in SHORT for word in ("--set", setting)]
PHASES = {
    "run": ["run", "waste_shufflenet", "--data", "photos", "--out", "out", "--exports", "", *SET],
    "compress": ["compress", "net.safetensors", "--step", "prune_layers count=1 ranking=last", "--step",
                 "train epochs=4 warmup_epochs=0", "--data", "photos", "--out", "out/small.safetensors"],
    "export": ["export", "net.safetensors", "--format", "packed", "--data", "photos", "--out", "out/net.packed"],
    "prepare": ["prepare", "photos", "out/prepared"],
    "shrink": ["shrink", "net.safetensors", "--macs", "60%", "--out", "out"],
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


@pytest.fixture
def place(tmp_path, photos, short):
    """Makes folders with all that the commands read, and an empty `out`."""
    torch.manual_seed(0)
    net = ShuffleNet(units=(2, 2, 2), width=0.1).build(num_classes=3).eval()
    about = {"classes": ("blue", "green", "red"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32}

    def make(name):
        folder = tmp_path / name
        (folder / "out").mkdir(parents=True)
        (folder / "tmp").symlink_to(tempfile.mkdtemp(dir=short))
        (folder / "photos").symlink_to(photos)
        checkpoint.save(folder / "net.safetensors", net, checkpoint.header_of(net, **about))
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
        elif path.suffix not in (".csv", ".json", ".log") and "plots" not in name:
            found[name] = path.read_bytes()
    return found


def assert_nothing_left(folder):
    hidden = [path for path in folder.rglob("*") if path.name.startswith(".") or "fw-" in path.name]
    assert hidden == []
    assert [path.name for path in (folder / "out").iterdir() if path.name.endswith(".work")] == []


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "kills"), [("run", 25), ("compress", 20), ("export", 20), ("prepare", 20),
                                              ("report", 10), ("search", 5)])  # fmt: skip
def test_kills_lose_nothing(place, phase, kills):
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


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "search"])
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
    "prepare": lambda folder: any((folder / "out").glob(".prepared.fw-*/*")),
    "search": lambda folder: any((folder / "out/workers").glob("*")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "number"), [
    *((phase, signal.SIGTERM) for phase in ("run", "compress", "export", "prepare")), ("compress", signal.SIGINT),
    pytest.param("search", signal.SIGTERM, marks=pytest.mark.slow),
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
