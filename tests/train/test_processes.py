"""Trainings that several processes share: the losses of one process, rows and words once, an error that ends all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import shared_training
from shell import SHORT, SMALL, run

from solution.run_folder import read_history, read_rows
from solution.runtime import ROOT

pytestmark = pytest.mark.long

SCRIPT = Path(shared_training.__file__)
# On processors too: with --cpu this launcher starts one process alone.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
          "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def begun(words, count):
    """`count` processes of one launch, at their end."""
    port = str(free_port())
    started = []
    for rank in range(count):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        places = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        here = {name: str(value) for name, value in own.items()} if count > 1 else {}
        started.append(subprocess.Popen([sys.executable, *words], env=os.environ | places | here, cwd=ROOT))
    assert [one.wait() for one in started] == [0] * count


def shared(photos, out, count):
    """{case: its losses} of all cases, each trained by `count` processes."""
    begun([str(SCRIPT), str(photos), str(out), *shared_training.CASES], count)
    folders = {name: out / name.replace(" ", "_") for name in shared_training.CASES}
    return {name: json.loads((folder / "losses.json").read_text()) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def alone_and_two(photos, tmp_path_factory):
    """The losses of one process and those of two."""
    out = tmp_path_factory.mktemp("shared")
    return shared(photos, out / "one", 1), shared(photos, out / "two", 2)


@pytest.mark.parametrize("name", shared_training.CASES)
def test_two_processes_have_the_losses_of_one(alone_and_two, name):
    one, two = (found[name] for found in alone_and_two)
    assert two == {key: pytest.approx(value, rel=1e-4) for key, value in one.items()}


def test_the_cases_differ_from_each_other(alone_and_two):
    assert len({found["loss"][-1] for found in alone_and_two[0].values()}) == len(shared_training.CASES)


AVERAGED = """
import torch
from torch import nn
from solution.train.processes import Processes, joined

state = joined("cpu")
processes = Processes(state)
for wide in (1200, 3, 1300):  # 2.9 MB, few numbers, more than before
    net = nn.Sequential(nn.Conv2d(600, wide, 1).to(memory_format=torch.channels_last), nn.Linear(3, 2))
    for step in range(3):
        drawn = [[torch.randn(one.shape, generator=torch.Generator().manual_seed(10 * step + rank))
                  for one in net.parameters()] for rank in range(3)]
        for one, own in zip(net.parameters(), drawn[state.process_index]):
            one.grad = torch.empty_like(one).copy_(own)
        processes.average_gradients(net)
        for one, *others in zip(net.parameters(), *drawn):
            torch.testing.assert_close(one.grad, sum(others) / 3)
"""


def test_gradients_of_three_processes_are_averaged_however_many_they_are():
    begun(["-c", AVERAGED], 3)


def launched(*words):
    return run([sys.executable, *LAUNCH, "-m", "solution", *map(str, words)])


def set_to(*settings):
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.slow
def test_a_launched_run_has_the_losses_of_a_plain_one_and_speaks_and_writes_once(photos, tmp_path):
    words = [
        "run",
        "waste_shufflenet",
        "--data",
        photos,
        "--exports",
        "",
        "--device",
        "cpu",
        *set_to(*SMALL, *SHORT, "every.lr=0.001"),
    ]
    done = launched(*words, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rows, checkpoints and histories are in") == 1
    assert done.stdout.count("stage 1 of 4") == 1
    plain = run([sys.executable, "-m", "solution", *map(str, words), "--out", str(tmp_path / "one")])
    assert plain.returncode == 0, plain.stderr
    assert [row.step for row in read_rows(tmp_path / "two")] == ["train", "before", "prune_layers", "after"]
    for stage in ("train", "before", "after"):
        one, two = (read_history(tmp_path / name / stage / "history.csv")["loss"] for name in ("one", "two"))
        assert two == pytest.approx(one, rel=1e-3), stage


def test_an_error_is_said_once_and_ends_all(photos, tmp_path):
    words = [
        "run",
        "waste_shufflenet",
        "--data",
        photos,
        "--out",
        tmp_path / "run",
        *set_to(*SMALL, "data.batch_size=3"),
    ]
    done = launched(*words)
    assert done.returncode != 0
    assert done.stderr.count("error: 2 processes cannot share a batch of 3 pictures: set data.batch_size to 4") == 1


def test_what_processes_cannot_share_is_refused(photos, tmp_path):
    done = launched("data", photos)
    assert done.returncode != 0
    assert done.stderr.count("error: data is not shared by processes: start it without a launcher") == 1
