"""Data sets that torchvision downloads: CIFAR-10, CIFAR-100 and SVHN.

Torchvision reads its CIFAR files by unpickling, after it has verified their checksums; nothing that a user hands us
goes that way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from solution.contracts import InputError
from solution.data.arrays import ArraySource
from solution.runtime import ROOT

NAMES = ("cifar10", "cifar100", "svhn")


def open_torchvision(name: str, folder: Path | None = None) -> ArraySource:
    """The data set `name`, downloaded into `folder` (input/<name>) when it is not there yet. Raises `InputError`."""
    folder = folder or ROOT / "input" / name
    try:
        train, test = _fetch(name, folder, True), _fetch(name, folder, False)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name} is not in {folder} and could not be downloaded ({error}); "
            "download it on a machine with a network and copy that folder here"
        ) from None
    parts = {split: (split, *_arrays(data)) for split, data in (("train", train), ("test", test))}
    classes = tuple(getattr(train, "classes", ()))
    return ArraySource(name, folder, parts, classes, (name, "torchvision"))


def _fetch(name: str, folder: Path, train: bool) -> object:
    from torchvision import datasets

    if name == "svhn":
        return datasets.SVHN(folder, split="train" if train else "test", download=True)
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    return kind(folder, train=train, download=True)


def _arrays(data: object) -> tuple[np.ndarray, np.ndarray]:
    images = np.asarray(data.data)
    labels = data.labels if hasattr(data, "labels") else data.targets
    if images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)  # (N, 3, H, W) -> (N, H, W, 3)
    return images, np.asarray(labels, dtype=np.int64)
