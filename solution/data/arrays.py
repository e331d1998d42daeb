"""Data sets that are arrays: an .npz file with images and labels, or one that torchvision downloads.

Arrays larger than `_SMALL_BYTES` stay on disk, and each picture is read when it is needed.
"""

from __future__ import annotations

import io
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from solution.contracts import InputError
from solution.data.archives import BROKEN, ZipFiles
from solution.data.source import (
    Item,
    Source,
    UnreadableImage,
    changed_stamp,
    class_name,
    digest,
    in_order,
    sorted_classes,
)
from solution.data.splits import split_called
from solution.runtime import cache_folder, input_folder, limit
from solution.text import safe_name

_SMALL_BYTES, _BLOCK_BYTES = 64 << 20, 1 << 20
_IMAGES = ("x", "images", "image", "data", "img")
_LABELS = ("y", "labels", "label", "targets", "target")
_CLASSES = ("classes", "class_names", "label_names")


class Rows:
    """An array (N, ...) in a file, whose rows are read when they are needed; the file closes with it.

    offset  of the first row in `file`, in bytes
    """

    def __init__(self, file: IO[bytes], offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._file, self._offset, self.shape, self.dtype = file, offset, shape, dtype
        self.ndim = len(shape)
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        self._file.seek(self._offset + start * self._row_bytes)
        data = self._file.read(max(stop - start, 0) * self._row_bytes)
        return np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of an array, each made (H, W, 3) uint8 when it is indexed.

    rows   (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)
    scale  what its values are multiplied with
    """

    rows: np.ndarray | Rows
    scale: int = 1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(number)
        image = self.rows[number : number + 1][0]
        if image.ndim == 2:
            image = image[..., None]  # (H, W) -> (H, W, 1)
        if channels_first(self.rows.shape):
            image = image.transpose(1, 2, 0)
        if image.dtype != np.uint8:
            image = np.round(image.astype(np.float32) * self.scale).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is (N, 1 or 3, H, W)."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)


class ArraySource(Source):
    """Pictures in arrays.

    parts    {split: (its key, for messages; its pictures; labels (N,))}
    classes  class names, or () to name classes by their labels
    stamp    anything that changes when the content does
    """

    def __init__(
        self,
        name: str,
        path: Path,
        parts: Mapping[str, tuple[str, Pictures, np.ndarray]],
        classes: tuple[str, ...],
        stamp: object,
    ) -> None:
        self.name = safe_name(name)
        self.path = path
        self._stamp = stamp
        self._images = {key: images for key, images, _ in parts.values()}
        names = {split: _names(labels, classes) for split, (_, _, labels) in parts.items()}
        self.classes = classes or sorted_classes(name for found, _ in names.values() for name in found)
        position = {label: number for number, label in enumerate(self.classes)}
        self.items = in_order(
            Item(split=split, label=position[names[split][0][label]], name=f"{key}[{number:06d}]")
            for split, (key, _, _) in parts.items()
            for number, label in enumerate(names[split][1].tolist())
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
            return self._images[key][int(number)]
        except (KeyError, IndexError, ValueError, OSError):
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
        pictures = _as_pictures(arrays[images], images, path)
        parts[split] = (images, pictures, _as_labels(arrays[labels], labels, path))
        if len(pictures) != len(parts[split][2]):
            raise InputError(f"{path}: {images} has {len(pictures)} images, but {labels} {len(parts[split][2])} labels")
    named = next((arrays[key] for key in arrays if key.lower() in _CLASSES), None)
    classes = () if named is None else tuple(class_name(str(name)) for name in named[:])
    status = path.stat()
    return ArraySource(path.stem, path, parts, classes, (path.name, *changed_stamp(status)))


def _load(path: Path) -> dict[str, np.ndarray | Rows]:
    """{key: array}. `InputError` unless every array is whole by its checksum."""
    try:
        files = ZipFiles(path)
        return {name.removesuffix(".npy"): _array(files, name) for name in files.stamps if name.endswith(".npy")}
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path}: cannot be read as arrays ({error}); write or fetch it again") from None


def _array(files: ZipFiles, name: str) -> np.ndarray | Rows:
    with files.open(name) as stream:
        first = np.lib.format.read_magic(stream) == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        if dtype.hasobject:
            raise InputError(f"{files.path}: {name} holds objects, and object arrays are never unpickled")
        header, length = stream.tell(), math.prod(shape) * dtype.itemsize
        if header + length != files.size(name):
            raise ValueError(f"{name} claims {length:,} bytes and has {files.size(name) - header:,}")
        most = limit("ARRAY_BYTES", 20_000_000_000)
        if length > most:
            raise InputError(
                f"{files.path}: {name} has {length:,} bytes, more than {most:,}: split it up, or set "
                "SOLUTION_MAX_ARRAY_BYTES to a larger number"
            )
        if fortran or length < _SMALL_BYTES or not shape:
            return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if fortran else "C")
        offset = files.offset(name)
        if offset is not None:
            while stream.read(_BLOCK_BYTES):
                pass  # verifies the checksum
            return Rows(files.path.open("rb"), offset + header, shape, dtype)
        return Rows(_spooled(stream, length, files.path), 0, shape, dtype)


def _spooled(stream: IO[bytes], length: int, path: Path) -> IO[bytes]:
    """What is left of `stream` as a file without a name, which is gone when it is closed."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < length:
            raise OSError(f"{length:,} bytes are needed")
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (lives as long as the array)
    except OSError as error:
        raise InputError(
            f"{path}: {folder} has no room to unpack it ({error}); set SOLUTION_CACHE to a folder with more"
        ) from None
    shutil.copyfileobj(stream, file, _BLOCK_BYTES)
    return file


def _pairs(arrays: Mapping[str, np.ndarray | Rows], path: Path) -> dict[str, tuple[str, str]]:
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


def _as_pictures(array: np.ndarray | Rows, key: str, path: Path) -> Pictures:
    shape = array.shape
    known = len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3) or channels_first(shape)))
    if not known or 0 in shape:
        raise InputError(f"{path}: {key} has shape {shape}; images are (N, H, W), (N, H, W, 3) or (N, 3, H, W)")
    if array.dtype == np.uint8:
        return Pictures(rows=array)
    low, high = -1, -1
    if array.dtype.kind in "iufb":
        step = max(_BLOCK_BYTES // (math.prod(shape[1:]) * array.dtype.itemsize), 1)
        blocks = (array[start : start + step] for start in range(0, len(array), step))
        ends = [(block.min(), block.max()) for block in blocks]
        low, high = np.min([low for low, _ in ends]), np.max([high for _, high in ends])
    if not (low >= 0 and high <= 255):
        raise InputError(
            f"{path}: {key} holds {array.dtype} from {low} to {high}; images are 0 to 255, or floats from 0 to 1"
        )
    return Pictures(rows=array, scale=255 if array.dtype.kind in "fb" and high <= 1 else 1)


def _as_labels(array: np.ndarray | Rows, key: str, path: Path) -> np.ndarray:
    labels = array if isinstance(array, np.ndarray) else array[:]
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or (labels.dtype.kind not in "iuU" and not _whole(labels)):
        raise InputError(f"{path}: {key} is {array.dtype} of shape {array.shape}; labels are N whole numbers or names")
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def _whole(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "f" and bool(np.isfinite(labels).all() and (labels == np.round(labels)).all())


def _names(labels: np.ndarray, classes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The names of the labels (N,) that occur, and for each label the position of its name among these, (N,)."""
    found, positions = np.unique(labels, return_inverse=True)
    named = labels.dtype.kind == "U"
    names = [class_name(str(label)) for label in found]
    wrong = [name for name in names if (name not in classes if named else not 0 <= int(name) < len(classes))]
    if classes and wrong:
        raise InputError(f"the label {wrong[0]} has no name: there are {len(classes)} class names, counted from 0")
    return [classes[label] for label in found] if classes and not named else names, positions


NAMES = ("cifar10", "cifar100", "svhn")


def open_torchvision(name: str, folder: Path | None = None) -> ArraySource:
    """The data set `name`, downloaded into `folder` (input/<name>) when it is not there yet. Raises `InputError`."""
    folder = folder or input_folder() / name
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


def _arrays(data: Any) -> tuple[Pictures, np.ndarray]:
    images = np.asarray(data.data)
    labels = data.labels if hasattr(data, "labels") else data.targets
    return Pictures(rows=images), np.asarray(labels, dtype=np.int64)
