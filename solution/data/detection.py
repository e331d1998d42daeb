"""Pictures with boxes -> train, val and calibration loaders: ``DetectionData(path="coco128.tar").open(seed=0)``.

They are read where they lie: ``images/<split>/*.jpg`` and ``labels/<split>/*.txt`` as YOLO writes them. Each line of a
label file is one box: class, center x, center y, width, height, all but the class as fractions of the picture. A
picture without a label file has no boxes. Names of classes are in ``classes.txt``, one a line, or under ``names`` in
``data.yaml``; without either they are COCO's 80.

A picture is put on a square: shrunk or grown without distortion, the rest of the square gray. A batch is images
(B, 3, S, S) from 0 to 1, and targets (M, 6): image in the batch, class, x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

import cv2
import numpy as np
import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from solution.contracts import InputError
from solution.data.archives import TarFiles, ZipFiles
from solution.data.decode import decode
from solution.data.loaders import MAX_SIDE, Loaders
from solution.data.source import DatasetInfo, Files, FolderFiles, UnreadableImage, class_name, digest
from solution.data.splits import is_picture, split_called
from solution.data.views import EpochSampler, PlainLoader, TrainLoader, as_batch, as_is, train_loader
from solution.runtime import limit
from solution.text import safe_name

NAMES, YAML = "classes.txt", "data.yaml"
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO = tuple(_COCO.split(","))
_EXPECTED = "images/<split>/*.jpg with labels/<split>/*.txt, split being train, val or another usual name"


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One picture. boxes: (M, 5) float32 of class, center x, center y, width, height, the last four as fractions."""

    split: str
    name: str
    boxes: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """A data set of pictures with boxes, sorted by split and name."""

    name: str
    path: Path
    classes: tuple[str, ...]
    items: tuple[Scene, ...]
    files: Files

    def image(self, scene: Scene) -> np.ndarray:
        """(H, W, 3) uint8 RGB. `InputError` when it cannot be read: boxes without their picture would be lost."""
        try:
            return decode(self.files.read(scene.name), scene.name)
        except UnreadableImage as error:
            raise InputError(f"{self.path}: {error}; replace it, or take it and its label file out") from error


def open_scenes(path: str | Path) -> Scenes:
    """The data set at `path`: a folder, .zip, .tar, .tar.gz or .tgz. `InputError` when it is laid out otherwise."""
    where = Path(path).expanduser()
    files = _files(where)
    names = [name for name in files.stamps if is_picture(name) and "images" in PurePosixPath(name).parts[:-2]]
    found = [(split, name) for name in sorted(names) if (split := _split(PurePosixPath(name).parts[-2]))]
    if not found:
        raise InputError(f"{path}: no pictures with boxes here; expected {_EXPECTED}")
    classes = _classes(files)
    items = tuple(Scene(split=split, name=name, boxes=_boxes(files, name, len(classes))) for split, name in found)
    return Scenes(name=safe_name(where.name.split(".")[0]), path=where, classes=classes, items=items, files=files)


def _files(where: Path) -> Files:
    if where.is_dir():
        return FolderFiles(where)
    if not where.is_file():
        raise InputError(f"no data set at {where}: give a folder or an archive with {_EXPECTED}")
    return ZipFiles(where) if where.suffix.lower() == ".zip" else TarFiles(where)


def _split(folder: str) -> str | None:
    starts = (split for split in ("train", "val") if folder.lower().startswith(split))
    return split_called(folder) or next(starts, None)


def _classes(files: Files) -> tuple[str, ...]:
    found = {PurePosixPath(name).name: name for name in sorted(files.stamps, reverse=True)}
    if NAMES in found:
        names = files.read(found[NAMES]).decode(errors="surrogateescape")
        return tuple(class_name(name) for name in names.strip().splitlines())
    return _listed(files, found[YAML]) if YAML in found else COCO


def _listed(files: Files, name: str) -> tuple[str, ...]:
    """The names in a data.yaml: a list, or {number: name}."""
    wrong = f"{files.path}: {name} must hold `names`, a list or numbers from 0 with a name each"
    try:
        names = yaml.safe_load(files.read(name))["names"]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError, UnreadableImage) as error:
        raise InputError(wrong) from error
    named = names if isinstance(names, dict) else dict(enumerate(names if isinstance(names, list) else ()))
    numbered = bool(named) and named.keys() == set(range(len(named)))
    # Lists of lists, by the aliases of YAML, may stand for more text than there is memory.
    if not numbered or not all(isinstance(value, str | int | float) for value in named.values()):
        raise InputError(wrong)
    return tuple(class_name(str(named[number])) for number in range(len(named)))


def _boxes(files: Files, picture: str, num_classes: int) -> np.ndarray:
    parts = list(PurePosixPath(picture).with_suffix(".txt").parts)
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    name = str(PurePosixPath(*parts))
    try:
        lines = files.read(name).decode().splitlines() if name in files.stamps else []
        boxes = np.array([line.split() for line in lines if line.strip()], dtype=np.float32).reshape(-1, 5)
    except ValueError as error:
        raise InputError(f"{files.path}: {name} must hold five numbers a line: class, x, y, width, height") from error
    if len(boxes) and not (boxes[:, 0].min() >= 0 and boxes[:, 0].max() < num_classes):
        raise InputError(f"{files.path}: {name} names class {boxes[:, 0].max():.0f}; there are {num_classes}")
    if not ((boxes[:, 1:] >= 0) & (boxes[:, 1:] <= 1)).all():
        raise InputError(f"{files.path}: {name} has a box beyond its picture; numbers are fractions from 0 to 1")
    return boxes


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

    seen: PlainLoader
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def fingerprint(self) -> dict[str, str]:
        """{"labels", "pixels"}: keys of what train and val hold, in order."""
        shown = [cast("Framed", loader.dataset) for loader in (self.seen, self.val) if loader is not None]
        scenes, files = [scene for own in shown for scene in own.part], shown[0].scenes.files
        return {
            "labels": digest([self.info.classes, *((scene.name, scene.boxes.tolist()) for scene in scenes)]),
            "pixels": digest(zlib.crc32(files.read(scene.name)) for scene in scenes),
        }


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """Which data set, and how its pictures are sized, varied and batched.

    path                folder or archive, as above
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
        for name, high in (("size", MAX_SIDE), ("workers", limit("WORKERS", 256))):
            if getattr(self, name) > high:
                raise InputError(f"data.{name} must be at most {high}, got {getattr(self, name)}")

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

    def _plain(self, scenes: Scenes, part: Sequence[Scene]) -> PlainLoader:
        return DataLoader(Framed(scenes, part, self.size), batch_size=_JUDGE_BATCH, collate_fn=as_is)

    def _varied(self, scenes: Scenes, part: Sequence[Scene], seed: int) -> TrainLoader:
        sampler = EpochSampler(np.zeros(len(part), dtype=np.int64), self.batch_size, seed)
        return train_loader(Varied(scenes, part, self.size, self.vary, seed), sampler, self.workers)


class Framed(Dataset[tuple[Tensor, Tensor]]):
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
