"""Images per second of our training loop against a plain one, in turns, one thread each.

    python -m benchmarks.training ../shared/data/recycle9.tar

Plain: torchvision's ImageFolder, the same albumentations, an eager float32 loop over a DataLoader without workers.
Ours: the decode-once cache, views made by one worker process, channels-last, a fused optimizer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from solution.contracts import StepContext
from solution.data.loaders import MEAN, STD, Data
from solution.data.views import Augment
from solution.models.shufflenet import ShuffleNet
from solution.runtime import hardware, seed_everything, set_threads
from solution.train.step import Train
from solution.train.trainer import Training

SIZE, BATCH = 80, 64


def plain_epoch(folder: Path) -> Callable[[int], tuple[float, float]]:
    """A function that trains one epoch the plain way and returns (images per second, 0)."""
    from torchvision.datasets import ImageFolder

    pipeline = Augment().pipeline(SIZE)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def transform(image: object) -> torch.Tensor:
        pixels = pipeline(image=np.asarray(image))["image"]
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std

    photos = ImageFolder(folder, transform)
    loader = torch.utils.data.DataLoader(photos, BATCH, shuffle=True, drop_last=True)
    net = ShuffleNet().build(len(photos.classes)).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def epoch(_: int) -> tuple[float, float]:
        start = time.perf_counter()
        for images, labels in loader:
            loss = F.cross_entropy(net(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        return len(loader) * BATCH / (time.perf_counter() - start), 0.0

    return epoch


def our_epoch(path: Path) -> Callable[[int], tuple[float, float]]:
    """A function that trains one epoch our way and returns (images per second, share of time waiting for data)."""
    loaders = Data(path=str(path), size=SIZE, batch_size=BATCH).open(splits=("train",))
    net = ShuffleNet().build(len(loaders.info.classes))
    run = Training(
        net, Train(epochs=100, lr=0.01), StepContext(example=torch.zeros(1, 3, SIZE, SIZE), train=loaders.train)
    )

    def epoch(number: int) -> tuple[float, float]:
        run.batches.set_epoch(number)
        figures = run.epoch(number, run.batches)
        return figures["images_per_s"], figures["data_wait"]

    return epoch


def main() -> None:
    """Run both in turns and print the ratio table."""
    parser = argparse.ArgumentParser(description="Our training loop against a plain one.")
    parser.add_argument("data", type=Path, help="a .tar of <split>/<Class>/*.jpg")
    parser.add_argument("--rounds", type=int, default=4, help="epochs of each, in turns; the first is warm-up")
    arguments = parser.parse_args()
    set_threads()
    seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(arguments.data) as archive:
            archive.extractall(folder, filter="data")
        train = next(path for path in sorted(Path(folder).rglob("train")) if path.is_dir())
        epochs = {"plain": plain_epoch(train), "ours": our_epoch(arguments.data)}
        figures = {name: [] for name in epochs}
        for number in range(arguments.rounds):
            for name, epoch in epochs.items():
                figures[name].append(epoch(number))
                print(f"round {number} {name}: {figures[name][-1][0]:.0f} images/s", flush=True)
    rate = {name: statistics.median(speed for speed, _ in rounds[1:]) for name, rounds in figures.items()}
    wait = statistics.median(share for _, share in figures["ours"][1:])
    print(f"\n{arguments.data.name}, {SIZE} px, batch {BATCH}, seed 0, median of {arguments.rounds - 1} epochs")
    print(f"{hardware()}, load {os.getloadavg()[0]:.1f}")
    print(f"| loop | images/s | ratio |\n|---|---|---|\n| plain | {rate['plain']:.0f} | 1.00 |")
    print(f"| ours | {rate['ours']:.0f} | {rate['ours'] / rate['plain']:.2f} |")
    print(f"ours waits for data {wait:.1%} of an epoch")


if __name__ == "__main__":
    main()
