"""Pictures with boxes -> train, val and calibration loaders: ``DetectionData(path="coco128.tar").open(seed=0)``.

A picture is put on a square: shrunk or grown without distortion, the rest of the square gray. A batch is images
(B, 3, S, S) from 0 to 1, and targets (M, 6): image in the batch, class, x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from solution.contracts import InputError
from solution.data.boxes import Scene, Scenes, open_scenes
from solution.data.loaders import Loaders
from solution.data.source import DatasetInfo, digest
from solution.data.views import EpochSampler, as_batch, as_is, train_loader

GRAY = 114
_LEAST_PIXELS = 2
_LEAST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Placing:
    """The place of a picture on the square: its width and height in pixels, its corner, whether it is mirrored."""

    width: int
    height: int
    left: int
    top: int
    mirrored: bool = False


@dataclass(frozen=True, kw_only=True)
class Vary:
    """How training pictures differ from epoch to epoch.

    zoom    sides grow or shrink by up to this share
    flip    chance of a mirror image
    color  brightness of each channel changes by up to this share
    """

    zoom: float = 0.4
    flip: float = 0.5
    color: float = 0.2

    def __post_init__(self) -> None:
        for name in ("zoom", "flip", "color"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"vary.{name} must lie in [0, 1), got {getattr(self, name)}")

    def placing(self, shape: tuple[int, ...], size: int, rng: np.random.Generator) -> Placing:
        """A random place; a picture larger than the square is cut at its edges."""
        zoom = 1 + rng.uniform(-self.zoom, self.zoom)
        width, height = _sides(shape, size * zoom)
        left, top = (round(float(rng.uniform(*sorted((0, size - side))))) for side in (width, height))
        return Placing(width=width, height=height, left=left, top=top, mirrored=bool(rng.random() < self.flip))

    def colored(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 with other brightness."""
        gains = 1 + rng.uniform(-self.color, self.color, 3)
        return np.clip(image * gains, 0, 255).astype(np.uint8)


def centered(shape: tuple[int, ...], size: int) -> Placing:
    """As large as fits, in the middle."""
    width, height = _sides(shape, size)
    return Placing(width=width, height=height, left=(size - width) // 2, top=(size - height) // 2)


def _sides(shape: tuple[int, ...], longest: float) -> tuple[int, int]:
    scale = longest / max(shape[:2])
    return max(round(shape[1] * scale), 1), max(round(shape[0] * scale), 1)


def framed(image: np.ndarray, placing: Placing, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) uint8."""
    shrinks = placing.width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if image.shape[:2] != (placing.height, placing.width):
        image = cv2.resize(image, (placing.width, placing.height), interpolation=how)
    if placing.mirrored:
        image = image[:, ::-1]
    square = np.full((size, size, 3), GRAY, dtype=np.uint8)
    left, top = max(placing.left, 0), max(placing.top, 0)
    part = image[max(-placing.top, 0) :, max(-placing.left, 0) :][: size - top, : size - left]
    square[top : top + part.shape[0], left : left + part.shape[1]] = part
    return square


def corners(boxes: np.ndarray, placing: Placing) -> np.ndarray:
    """Boxes (M, 5) of class and fractions to (M, 5) float32 of class, x1, y1, x2, y2 in pixels of the square."""
    label, x, y, width, height = boxes.T
    x = 1 - x if placing.mirrored else x
    edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    sides, starts = (placing.width, placing.height), (placing.left, placing.top)
    return np.stack([label, *(edge * sides[i % 2] + starts[i % 2] for i, edge in enumerate(edges))], 1)


def visible(boxes: np.ndarray, size: int) -> np.ndarray:
    """Of boxes (M, 5) from `corners`, those that are still to be seen on the square, cut at its edge."""
    cut = np.concatenate([boxes[:, :1], boxes[:, 1:].clip(0, size)], 1)
    sides, whole = (part[:, 3:] - part[:, 1:3] for part in (cut, boxes))
    share = sides.prod(1) / np.maximum(whole.prod(1), 1e-9)
    return cut[(sides.min(1) >= _LEAST_PIXELS) & (share >= _LEAST_SHARE)]


MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_JUDGE_BATCH = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionLoaders(Loaders):
    """The batches of a data set with boxes. There is no dev split: so small a set spares nothing, nothing is chosen.

    seen    the training pictures as they are, for nets that have not learned from them here
    """

    seen: DataLoader
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def fingerprint(self) -> dict[str, str]:
        """{"labels", "pixels"}: keys of what train and val hold, in order."""
        shown: list[Any] = [loader.dataset for loader in (self.seen, self.val) if loader is not None]
        scenes, files = [scene for own in shown for scene in own.part], shown[0].scenes.files
        return {
            "labels": digest([self.info.classes, *((scene.name, scene.boxes.tolist()) for scene in scenes)]),
            "pixels": digest(zlib.crc32(files.read(scene.name)) for scene in scenes),
        }


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """Which data set, and how its pictures are sized, varied and batched.

    path                folder or archive: see `solution.data.boxes`
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
        if split == "val" and not found:
            found = [scene for scene in scenes.items if scene.split == "test"]
        if not found:
            raise InputError(f"{scenes.path}: no pictures in a {split} split")
        return found[: self.most_images or len(found)]

    def _plain(self, scenes: Scenes, part: Sequence[Scene]) -> DataLoader:
        return DataLoader(Framed(scenes, part, self.size), batch_size=_JUDGE_BATCH, collate_fn=as_is)

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
        placing = centered(image.shape, self.size)
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
        rng = np.random.default_rng([self.seed, view, index])
        scene = self.part[index]
        image = self.vary.colored(self.scenes.image(scene), rng)
        placing = self.vary.placing(image.shape, self.size, rng)
        return framed(image, placing, self.size), visible(corners(scene.boxes, placing), self.size)


def batch(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Squares (S, S, 3) uint8 with boxes (M, 5) to one batch of images and targets."""
    images, boxes = zip(*pairs, strict=True)
    rows = [np.insert(own, 0, index, axis=1) for index, own in enumerate(boxes)]
    targets = torch.from_numpy(np.concatenate(rows).astype(np.float32))
    return as_batch(np.stack(images), (MEAN, STD)), targets


def _info(scenes: Scenes, parts: dict[str, list[Scene]]) -> DatasetInfo:
    """Counts are of boxes."""
    counts = {}
    for split, part in parts.items():
        found = Counter(int(label) for scene in part for label in scene.boxes[:, 0])
        counts[split] = {name: found[label] for label, name in enumerate(scenes.classes)}
    return DatasetInfo(name=scenes.name, classes=scenes.classes, counts=counts, source=str(scenes.path))
