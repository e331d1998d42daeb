"""Data sets that are arrays: an .npz file with images and labels, or one that torchvision downloads."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from solution.contracts import InputError
from solution.data.source import (
    Item,
    Source,
    UnreadableImage,
    class_name,
    digest,
    in_order,
    sorted_classes,
    split_called,
)
from solution.names import safe_name
from solution.runtime import ROOT

_IMAGES = ("x", "images", "image", "data", "img")
_LABELS = ("y", "labels", "label", "targets", "target")
_CLASSES = ("classes", "class_names", "label_names")


class ArraySource(Source):
    """Pictures in memory.

    parts    {split: (its key, for messages; images (N, H, W, 3) uint8; labels (N,))}
    classes  class names, or () to name classes by their labels
    stamp    anything that changes when the content does
    """

    def __init__(
        self,
        name: str,
        path: Path,
        parts: Mapping[str, tuple[str, np.ndarray, np.ndarray]],
        classes: tuple[str, ...],
        stamp: object,
    ) -> None:
        self.name = safe_name(name)
        self.path = path
        self._stamp = stamp
        self._images = {key: images for key, images, _ in parts.values()}
        names = {split: [_name_of(label, classes) for label in labels] for split, (_, _, labels) in parts.items()}
        self.classes = classes or sorted_classes(label for labels in names.values() for label in labels)
        position = {label: number for number, label in enumerate(self.classes)}
        self.items = in_order(
            Item(split=split, label=position[label], name=f"{key}[{number:06d}]")
            for split, (key, _, _) in parts.items()
            for number, label in enumerate(names[split])
        )

    def read(self, item: Item) -> bytes:
        """`item` as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.image(item)).save(buffer, "PNG")
        return buffer.getvalue()

    def image(self, item: Item) -> np.ndarray:
        """`item` as (H, W, 3) uint8 RGB."""
        key, _, number = item.name.rstrip("]").rpartition("[")
        try:
            return np.ascontiguousarray(_rgb(self._images[key][int(number)]))
        except (KeyError, IndexError, ValueError):
            raise UnreadableImage(item.name, "there is no such picture") from None

    def fingerprint(self) -> str:
        """A key of the file's name, size and time."""
        return digest([self._stamp])


def open_npz(path: Path) -> ArraySource:
    """The data set in an .npz file: `x` and `y`, or `x_train`, `y_train`, `x_test` ..., or `images` and `labels`.

    Images are (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W); 0 to 255, or floats from 0 to 1. Labels are whole
    numbers or strings; `classes` may name them. Raises `InputError`.
    """
    arrays = _load(path)
    parts = {}
    for split, (images, labels) in _pairs(arrays, path).items():
        parts[split] = (images, _as_images(arrays[images], images, path), _as_labels(arrays[labels], labels, path))
        if len(parts[split][1]) != len(parts[split][2]):
            raise InputError(
                f"{path}: {images} has {len(parts[split][1])} images, but {labels} {len(parts[split][2])} labels"
            )
    named = next((arrays[key] for key in arrays if key.lower() in _CLASSES), None)
    classes = () if named is None else tuple(class_name(str(name)) for name in named)
    status = path.stat()
    return ArraySource(path.stem, path, parts, classes, (path.name, status.st_size, status.st_mtime_ns))


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as arrays ({error}); object arrays are never unpickled") from None


def _pairs(arrays: Mapping[str, np.ndarray], path: Path) -> dict[str, tuple[str, str]]:
    """{split: (key of the images, key of the labels)}."""
    images = {split: key for key in arrays if (split := _split_of(key, _IMAGES)) is not None}
    labels = {split: key for key in arrays if (split := _split_of(key, _LABELS)) is not None}
    pairs = {split: (images[split], labels[split]) for split in images if split in labels}
    if not pairs:
        raise InputError(
            f"{path}: no images with labels among the keys {', '.join(arrays) or '(none)'}; expected x and y, "
            "images and labels, or these with a split (x_train, y_train, x_test, y_test)"
        )
    return pairs


def _split_of(key: str, names: tuple[str, ...]) -> str | None:
    """The split that a key such as "x_train", "train_images" or "images" holds, or None."""
    words = key.lower().split("_")
    rest = [word for word in words if word not in names]
    if len(words) - len(rest) != 1 or len(rest) > 1:
        return None
    return split_called(rest[0]) if rest else ""


def _as_images(array: np.ndarray, key: str, path: Path) -> np.ndarray:
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)) or 0 in array.shape:
        raise InputError(f"{path}: {key} has shape {array.shape}; images are (N, H, W), (N, H, W, 3) or (N, 3, H, W)")
    return _as_bytes(array, key, path)


def _as_bytes(array: np.ndarray, key: str, path: Path) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    low, high = (array.min(), array.max()) if array.dtype.kind in "iufb" else (-1, -1)
    if not (low >= 0 and high <= 255):
        raise InputError(
            f"{path}: {key} holds {array.dtype} from {low} to {high}; images are 0 to 255, or floats from 0 to 1"
        )
    scale = 255 if array.dtype.kind in "fb" and high <= 1 else 1
    return np.round(array.astype(np.float32) * scale).astype(np.uint8)


def _as_labels(array: np.ndarray, key: str, path: Path) -> np.ndarray:
    labels = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1 or (labels.dtype.kind not in "iuU" and not _whole(labels)):
        raise InputError(f"{path}: {key} is {array.dtype} of shape {array.shape}; labels are N whole numbers or names")
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def _whole(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "f" and bool(np.isfinite(labels).all() and (labels == np.round(labels)).all())


def _name_of(label: object, classes: tuple[str, ...]) -> str:
    if not classes or isinstance(label, str):
        return class_name(str(label))
    if not 0 <= int(label) < len(classes):
        raise InputError(f"the label {label} has no name: there are {len(classes)} class names, counted from 0")
    return classes[int(label)]


def _rgb(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]  # (H, W) -> (H, W, 1)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


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
