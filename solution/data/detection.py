"""Pictures with boxes -> train, val and calibration loaders: ``DetectionData(path="coco128.tar").open(seed=0)``.

A batch is images (B, 3, S, S) from 0 to 1, and targets (M, 6): image in the batch, class, x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from solution.contracts import InputError
from solution.data.boxes import Scene, Scenes, open_scenes
from solution.data.dataset_info import DatasetInfo
from solution.data.framing import Vary, centerd, corners, framed, visible
from solution.data.views import EpochSampler, as_batch, train_loader

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_JUDGE_BATCH = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionLoaders:
    """The batches of a data set; as `solution.dataloader.Loaders`, but for:

    seen    the training pictures as they are, for nets that have not learned from them here
    dev     None: so small a set spares nothing, and nothing is chosen
    """

    info: DatasetInfo
    train: DataLoader
    val: DataLoader
    seen: DataLoader
    calibration: DataLoader
    dev: None = None
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """Which data set, and how its pictures are sized, varied and batched.

    path                where it lies: see `solution.data.boxes`
    size                side of the square that a net sees, in pixels
    batch_size          pictures in a training batch
    vary                how training pictures differ from epoch to epoch
    most_images         pictures of each split at most; 0 takes all
    calibration_images  how many training pictures calibrate
    workers             processes that make training batches; 0 makes them in this one
    """

    path: str | None = None
    size: int = 640
    batch_size: int = 16
    vary: Vary = field(default_factory=Vary)
    most_images: int = 0
    calibration_images: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise InputError(f"data.size must be a multiple of 32, got {self.size}")
        for name, low in (("batch_size", 1), ("most_images", 0), ("calibration_images", 1), ("workers", 0)):
            if getattr(self, name) < low:
                raise InputError(f"data.{name} must be at least {low}, got {getattr(self, name)}")

    def open(self, seed: int = 0) -> DetectionLoaders:
        """The loaders. `InputError` without a path, or when a split is empty."""
        if self.path is None:
            raise InputError("name the pictures with boxes: --data coco128.tar")
        scenes = open_scenes(self.path)
        parts = {split: self._part(scenes, split) for split in ("train", "val")}
        order = np.random.default_rng(0).permutation(len(parts["train"]))[: self.calibration_images]
        calibration = [parts["train"][index] for index in order]
        return DetectionLoaders(
            info=_info(scenes, parts),
            train=self._varied(scenes, parts["train"], seed),
            val=self._plain(scenes, parts["val"]),
            seen=self._plain(scenes, parts["train"]),
            calibration=self._plain(scenes, calibration),
        )

    def _part(self, scenes: Scenes, split: str) -> list[Scene]:
        found = [scene for scene in scenes.items if scene.split == split]
        if not found:
            raise InputError(f"{scenes.path}: no pictures in a {split} split")
        return found[: self.most_images or len(found)]

    def _plain(self, scenes: Scenes, part: Sequence[Scene]) -> DataLoader:
        return DataLoader(Framed(scenes, part, self.size), batch_size=_JUDGE_BATCH, collate_fn=_as_is)

    def _varied(self, scenes: Scenes, part: Sequence[Scene], seed: int) -> DataLoader:
        sampler = EpochSampler(np.zeros(len(part), dtype=np.int64), self.batch_size, seed)
        return train_loader(Varied(scenes, part, self.size, self.vary, seed), sampler, self.workers)


class Framed(Dataset):
    """Pictures as they are, in the middle of the square; fetched a batch at a time."""

    def __init__(self, scenes: Scenes, part: Sequence[Scene], size: int) -> None:
        self.scenes, self.part, self.size = scenes, part, size

    def __len__(self) -> int:
        return len(self.part)

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images and targets."""
        return batch([self._one(self.part[index]) for index in positions])

    def _one(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        image = self.scenes.image(scene)
        placing = centerd(image.shape, self.size)
        return framed(image, placing, self.size), corners(scene.boxes, placing)


class Varied(Dataset):
    """Random views; fetched a batch of (view, index) pairs at a time."""

    def __init__(self, scenes: Scenes, part: Sequence[Scene], size: int, vary: Vary, seed: int) -> None:
        self.scenes, self.part, self.size, self.vary, self.seed = scenes, part, size, vary, seed

    def __len__(self) -> int:
        return len(self.part)

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Images and targets."""
        return batch([self._one(*pair) for pair in pairs])

    def _one(self, view: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        chance = np.random.default_rng([self.seed, view, index])
        scene = self.part[index]
        image = self.vary.colored(self.scenes.image(scene), chance)
        placing = self.vary.placing(image.shape, self.size, chance)
        return framed(image, placing, self.size), visible(corners(scene.boxes, placing), self.size)


def batch(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Squares (S, S, 3) uint8 with boxes (M, 5) to one batch of images and targets."""
    images, boxes = zip(*pairs, strict=True)
    rows = [np.insert(own, 0, index, axis=1) for index, own in enumerate(boxes)]
    targets = torch.from_numpy(np.concatenate(rows).astype(np.float32))
    return as_batch(np.stack(images), (MEAN, STD)), targets


def _as_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def _info(scenes: Scenes, parts: dict[str, list[Scene]]) -> DatasetInfo:
    """Counts are of boxes."""
    counts = {}
    for split, part in parts.items():
        found = Counter(int(label) for scene in part for label in scene.boxes[:, 0])
        counts[split] = {name: found[label] for label, name in enumerate(scenes.classes)}
    return DatasetInfo(name=scenes.name, classes=scenes.classes, counts=counts, source=str(scenes.path))
