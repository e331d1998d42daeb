"""Open a data set, whatever kind it is: `open_source("../photos.tar")`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from solution.contracts import InputError
from solution.data.archives import TarFiles, ZipFiles
from solution.data.arrays import NAMES, open_npz, open_torchvision
from solution.data.decode import decode
from solution.data.pairs import PairSource, holds_pairs
from solution.data.source import Files, FolderFiles, Item, Source, UnreadableImage
from solution.data.splits import EXPECTED, class_folders, flat_folders, root_of, split_folders
from solution.text import safe_name

RENDERED_MARK = "rendered.json"


class FileSource(Source):
    """Pictures in class folders or flat folders with tables, wherever `files` reads them from."""

    def __init__(self, files: Files, stem: str) -> None:
        root = root_of(files)
        layout = split_folders(files, root) or flat_folders(files, root) or class_folders(files, root)
        if layout is None:
            raise InputError(f"{files.path}: no pictures found where they are expected: {EXPECTED}. {_seen(files)}")
        self.name = safe_name(root.rstrip("/").rpartition("/")[2] or stem)
        self.path = files.path
        self.classes = layout.classes
        self.items = layout.items
        self.rendered = root + RENDERED_MARK in files.stamps
        self._files = files

    def read(self, item: Item) -> bytes:
        """The encoded file of `item`."""
        return self._files.read(item.name)

    def image(self, item: Item) -> np.ndarray:
        """`item` as (H, W, 3) uint8 RGB at full size."""
        return decode(self.read(item), item.name)

    def each_image(self, items: Sequence[Item], at_least: int) -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
        """Every item as (position, picture or what is wrong with it), in the order of the archive."""
        for position, data in self._files.read_each([item.name for item in items]):
            yield position, _decoded(data, items[position].name, at_least)

    def fingerprint(self) -> str:
        """A key of all files' names, sizes and times."""
        return self._files.fingerprint()


def _decoded(data: bytes | UnreadableImage, name: str, at_least: int) -> np.ndarray | UnreadableImage:
    if isinstance(data, UnreadableImage):
        return data
    try:
        return decode(data, name, at_least)
    except UnreadableImage as error:
        return error


def _seen(files: Files) -> str:
    names = sorted(files.stamps)
    return f"It has {len(names)} files, such as {names[0]}" if names else "It has no files at all"


__all__ = ["Item", "Source", "UnreadableImage", "open_source"]

_TARS = (".tar", ".tar.gz", ".tgz")


def open_source(path: str | Path, zip_encoding: str | None = None) -> Source:
    """The data set at `path`: a folder, .zip, .tar, .tar.gz, .tgz or .npz, or the name of one of torchvision's.

    zip_encoding  of names in a .zip that are not marked as UTF-8, such as "gbk"; None recognizes it
    Raises `InputError` when there is none, or when it is laid out in no way we know.
    """
    where = Path(path).expanduser()
    kind = where.name.lower()
    if where.is_dir():
        return _of_files(FolderFiles(where), where.resolve().name)
    if str(path) in NAMES:
        return open_torchvision(str(path))
    if not where.is_file():
        raise InputError(f"no data set at {path}: give a folder, an archive, an .npz file, or {', '.join(NAMES)}")
    if kind.endswith(_TARS):
        return _of_files(TarFiles(where), _stem(where))
    if kind.endswith(".zip"):
        return _of_files(ZipFiles(where, zip_encoding), _stem(where))
    if kind.endswith(".npz"):
        return open_npz(where)
    raise InputError(f"{path}: a file of unknown kind; data sets are folders, .zip, {', '.join(_TARS)} or .npz")


def _of_files(files: Files, stem: str) -> Source:
    return PairSource(files, safe_name(stem)) if holds_pairs(files) else FileSource(files, stem)


def _stem(path: Path) -> str:
    name = path.name
    return next((name[: -len(end)] for end in (".tar.gz", *_TARS, ".zip") if name.lower().endswith(end)), name)
