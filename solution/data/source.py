"""What every data set looks like to the rest: named classes and items whose pictures can be had one by one; and the
files of a folder that such items lie in, which archives imitate.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solution.contracts import InputError
from solution.text import printable

SPLITS = ("train", "val", "test", "")


class UnreadableImage(ValueError):  # noqa: N818  (it names a picture, not a mistake)
    """A picture that cannot be decoded. `name` is its path in the data set, `reason` what is wrong with it."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = printable(name), printable(reason)
        super().__init__(f"{self.name}: {self.reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One picture of a data set.

    split  "train", "val", "test", or "" when the data set has no splits
    label  position of its class in `Source.classes`
    name   its path inside the data set, as it is written there
    """

    split: str
    label: int
    name: str

    @property
    def title(self) -> str:
        """Its name, fit to be shown."""
        return printable(self.name)


class Source(ABC):
    """A data set where it lies: folder, archive, table or array. Nothing is unpacked and nothing is unpickled.

    name      what the data set is called: its root folder, or the stem of its file; fit to be part of a path
    path      of the folder or file
    classes   class names, sorted
    items     all pictures, sorted by split, class and name
    rendered  made by this project's generator, thus no photos
    of_pixels each pixel has a class, not each picture
    """

    name: str
    path: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    rendered: bool = False
    of_pixels: bool = False

    @abstractmethod
    def read(self, item: Item) -> bytes:
        """The encoded file of `item`. Raises `UnreadableImage` when it cannot be read."""

    @abstractmethod
    def image(self, item: Item) -> np.ndarray:
        """`item` as (H, W, 3) uint8 RGB at full size. Raises `UnreadableImage`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short key that changes when the content does. Cheap: it looks at names, sizes and times."""

    def each_image(self, items: Sequence[Item], at_least: int) -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
        """Every item of `items` as (position, picture or what is wrong with it), in whatever order is fastest.

        Pictures are (H, W, 3) uint8 RGB; large ones may come smaller than they are, but not below `at_least` pixels
        a side.
        """
        for position, item in enumerate(items):
            try:
                yield position, self.image(item)
            except UnreadableImage as error:
                yield position, error

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold pictures, in the order of `SPLITS`."""
        found = {item.split for item in self.items}
        return tuple(split for split in SPLITS if split in found)


def in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    """`items` sorted by split, class and name, so that their positions mean the same on every machine."""
    return tuple(sorted(items, key=lambda item: (SPLITS.index(item.split), item.label, item.name)))


def class_name(found: str) -> str:
    """The name of a class whose folder or label is `found`: in one Unicode form, and fit to be shown."""
    return printable(unicodedata.normalize("NFC", found))


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by value when all are whole numbers ("2" before "10"), else alphabetically."""
    found = set(names)
    if all(name.isascii() and name.isdigit() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def digest(parts: Iterable[object]) -> str:
    """A key of 24 hexadecimal digits for a series of values."""
    key = hashlib.sha256()
    for part in parts:
        key.update(repr(part).encode())
        key.update(b"\n")
    return key.hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """One data set in a few words.

    counts    {split: {class: number of pictures}}
    source    where it was read from
    rendered  made by this project's generator, thus no photos
    split     how train and val came apart: "as given", or how a val split was made
    """

    name: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    source: str
    rendered: bool = False
    split: str = "as given"

    @property
    def title(self) -> str:
        """What to call it wherever it is shown."""
        return "rendered demo data" if self.rendered else self.name


MAX_FILE_BYTES = 256 << 20
_MAX_DEPTH = 6
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Files(ABC):
    """A tree of files that is read in place.

    path     the folder or archive
    stamps   {path inside the tree: anything that changes when the file does}; hidden files are left out
    folders  paths of the folders, empty ones too
    """

    path: Path
    stamps: dict[str, object]
    folders: set[str]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of the file `name`. Raises `UnreadableImage`."""

    def read_each(self, names: Sequence[str]) -> Iterator[tuple[int, bytes | UnreadableImage]]:
        """Every file of `names` as (position, bytes or what is wrong), in whatever order is fastest."""
        for position, name in enumerate(names):
            try:
                yield position, self.read(name)
            except UnreadableImage as error:
                yield position, error

    def fingerprint(self) -> str:
        """A key of all names and stamps."""
        return digest(sorted(self.stamps.items()))


def changed_stamp(status: os.stat_result) -> tuple[int, ...]:
    """Differs whenever a file was written: tools that copy set the time of its content back, but not that of its
    entry.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FolderFiles(Files):
    """A folder on disk. Links in it are followed: whoever owns the folder made them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamps = {}
        self.folders = set()
        self._written: dict[str, str] = {}
        try:
            self._walk(path, "", 0)
        except OSError as error:
            raise InputError(f"{path}: cannot be listed ({error})") from None

    def _walk(self, folder: Path, prefix: str, depth: int) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                written = prefix + entry.name
                name = one_form(written, self.stamps)
                if hidden(name):
                    continue
                if entry.is_dir():
                    self.folders.add(name)
                    if depth < _MAX_DEPTH:
                        self._walk(Path(entry.path), written + "/", depth + 1)
                elif entry.is_file():
                    status = entry.stat()
                    self.stamps[name] = changed_stamp(status)
                    if name != written:
                        self._written[name] = written

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`."""
        try:
            refuse_huge(name, self.place(name).stat().st_size)
            return self.place(name).read_bytes()
        except OSError as error:
            raise UnreadableImage(name, f"cannot be read ({error.strerror})") from None

    def place(self, name: str) -> Path:
        """Where the file `name` is on disk."""
        return self.path / self._written.get(name, name)


def one_form(name: str, taken: Container[str] = ()) -> str:
    """`name` in the one Unicode form that all paths inside a data set have here: macOS writes letters and their accents
    apart, others do not. The name itself when there is such a one already.
    """
    composed = unicodedata.normalize("NFC", name)
    return name if composed in taken else composed


def refuse_huge(name: str, num_bytes: int) -> None:
    """`UnreadableImage` for a file that is too large to be a picture or a table."""
    if num_bytes > MAX_FILE_BYTES:
        raise UnreadableImage(name, f"{num_bytes:,} bytes are more than {MAX_FILE_BYTES:,}: refused")


def hidden(name: str) -> bool:
    """Whether a path is nobody's data: a dot file, or what macOS and Windows leave behind."""
    return any(part.startswith(".") or part in _JUNK for part in name.split("/"))
