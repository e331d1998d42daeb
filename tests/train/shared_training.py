"""Short trainings whose losses are written down. Run as a script it is one of the processes that share them.

    python shared_training.py PHOTOS OUT CASE...

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which process it is, as launchers set them.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch
from scenes import write_scenes

from solution.data.detection import DetectionData
from solution.data.loaders import Data
from solution.data.views import Augment, EpochSampler
from solution.losses.classification import Loss, Mixing
from solution.losses.distillation import DistillLoss
from solution.losses.margins import Margin
from solution.models.shufflenet import ShuffleNet
from solution.models.ssdlite import SsdLite
from solution.run_folder import read_history
from solution.runtime import is_main_process, set_threads
from solution.train.distillation import Assist, Distill
from solution.train.pretraining import Autoencode
from solution.train.step import Train, TrainDetector

# 62 training pictures in batches of 15: four a time, 7 and 8 of them on each of two processes.
DATA = Data(size=32, batch_size=15, workers=0, augment=Augment(quarter_turn=0.2), calibration_images=8)
# At large rates the last bits of sums, whose order differs, grow to what can be seen.
SHORT = {"epochs": 2, "lr": 0.001, "warmup_epochs": 0.5}
NET = ShuffleNet(units=(2, 2, 1), width=0.2)
SEVERAL = Loss(cross_entropy=0.5, macro_f1=0.5, class_weights="balanced")
CASES = {
    "balanced": (
        Train(**SHORT, optimizer="adamw", drop_path=0.3, loss=SEVERAL),
        {"sampling": "balanced"},
        dataclasses.replace(NET, dropout=0.3),
    ),
    "mixing": (Train(**SHORT, mixing=Mixing(mixup=0.4, cutmix=1.0)), {}, NET),
    "margin": (Train(**SHORT, margin=Margin(), auxiliary=0.3), {}, NET),
    "growing": (Train(**SHORT, first_size=24), {"workers": 1}, NET),
    "one small batch": (Train(**SHORT), {"batch_size": 1000}, NET),
    "stored": (Distill(**SHORT, teachers=("teacher",)), {"views": 2}, NET),
    "live": (
        Distill(**SHORT, teachers=("teacher",), live=True, mixing=Mixing(mixup=0.4),
                distill_loss=DistillLoss(hint=0.5, distance=0.5, angle=0.5)),
        {},
        NET,
    ),
    "assist": (Assist(**SHORT, teachers=("teacher",), live=True, assistant=NET), {}, NET),
    "autoencoder": (Autoencode(**SHORT, doublings=1, channels=8), {}, NET),
    "resumed": (Train(**SHORT | {"epochs": 4}, ema_decay=0.9), {}, NET),
    "own batches": (Train(**SHORT), {}, NET),
    "detector": (TrainDetector(**(SHORT | {"lr": 1e-6}), optimizer="sgd"), {}, SsdLite()),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Header:
    """What a teacher's file says."""

    classes: tuple
    size: int = 40
    mean: tuple = (0.5, 0.5, 0.5)
    std: tuple = (0.25, 0.25, 0.25)


def teacher(classes):
    torch.manual_seed(7)
    return ShuffleNet(units=(1, 1, 1), width=0.3).build(len(classes)).eval(), Header(classes)


class Killed(Exception):
    """In the middle of a training."""


def _killed_in(epoch):
    """From now on a training is killed when it comes to `epoch`, or is not, for None."""
    plain = EpochSampler.__dict__.get("plain_set_epoch", EpochSampler.set_epoch)

    def set_epoch(self, number):
        if number == epoch:
            raise Killed
        plain(self, number)

    EpochSampler.plain_set_epoch, EpochSampler.set_epoch = plain, set_epoch


def losses(photos, folder, name):
    """{"loss", "dev_f1"} of each epoch, and a number that all trained weights are in."""
    step, changes, net = CASES[name]
    if name == "detector":
        own = folder / os.environ.get("RANK", "0")
        own.mkdir(exist_ok=True)
        loaders = DetectionData(path=str(write_scenes(own / "shapes.tar")), size=64, batch_size=5).open(seed=3)
    else:
        loaders = dataclasses.replace(DATA, path=str(photos), **changes).open(seed=3)
    context = loaders.context(seed=3, folder=folder, load=lambda _: teacher(loaders.info.classes), log=lambda _: None)
    if name == "own batches":
        context = dataclasses.replace(context, train=[batch[:2] for batch in loaders.train])
    torch.manual_seed(3)
    model = net.build(len(loaders.info.classes))
    if name == "resumed":
        _killed_in(2)
        try:
            step(model, context)
            raise AssertionError("it was not killed")
        except Killed:
            _killed_in(None)
        context = dataclasses.replace(context, resume=True)
    trained = step(model, context)
    history = read_history(folder / "history.csv")
    weights = torch.cat([tensor.double().flatten() for tensor in trained.state_dict().values()])
    return {**{key: history[key] for key in ("loss", "dev_f1") if key in history}, "weights": float(weights.norm())}


def main():
    photos, out, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    set_threads()
    for name in names:
        folder = out / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        found = losses(photos, folder, name)
        if is_main_process():
            (folder / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
