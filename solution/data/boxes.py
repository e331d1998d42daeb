"""Pictures with boxes, read where they lie: ``images/<split>/*.jpg`` and ``labels/<split>/*.txt`` as YOLO writes them.

Each line of a label file is one box: class, center x, center y, width, height, all but the class as fractions of the
picture. A picture without a label file has no boxes. Names of classes are in ``classes.txt``, one a line, or under
``names`` in ``data.yaml``; without either they are COCO's 80.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from solution.contracts import InputError
from solution.data.archives import TarFiles, ZipFiles
from solution.data.decode import decode
from solution.data.files import Files, FolderFiles
from solution.data.layout import is_picture
from solution.data.source import UnreadableImage, class_name
from solution.data.splits import split_called
from solution.names import safe_name

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
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(wrong) from error
    named = names if isinstance(names, dict) else dict(enumerate(names if isinstance(names, list) else ()))
    if not named or named.keys() != set(range(len(named))):
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
