"""The same loop on two processes that share one model."""

import subprocess
import sys

import pytest
from shell import SHORT, SMALL

from solution.run_folder import read_rows
from solution.runtime import ROOT


@pytest.mark.slow
def test_two_processes_train_one_model_and_write_its_rows_once(photos, tmp_path):
    settings = [word for setting in SMALL + SHORT for word in ("--set", setting)]
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    words = ["-m", "solution", "run", "waste_shufflenet", "--data", str(photos), "--out", str(tmp_path / "run"),
             "--exports", ""]  # fmt: skip
    done = subprocess.run([sys.executable, *launch, *words, *settings], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row.step for row in read_rows(tmp_path / "run")] == ["train", "before", "prune_layers", "after"]
    assert done.stdout.count("rows, checkpoints and histories are in") == 1
