"""The command line as a user types it, on a net and a data set that take seconds."""

import subprocess
import sys

from solution.runtime import ROOT

SMALL = ["data.size=32", "data.batch_size=16", "data.workers=0", "model.width=0.1"]
SHORT = ["train.epochs=2", "before.epochs=1", "after.epochs=1", "train.warmup_epochs=1"]


def command(photos, out, *more):
    settings = [word for setting in SMALL + SHORT for word in ("--set", setting)]
    words = [sys.executable, "-m", "solution", "run", "waste_shufflenet", "--data", str(photos), "--out", str(out)]
    words += ["--exports", ""]
    return [*words, *settings, *more]


def run(words):
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
