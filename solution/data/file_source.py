"""A data set of picture files: a folder, or an archive read in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from solution.contracts import InputError
from solution.data.decode import decode
from solution.data.files import Files
from solution.data.layout import EXPECTED, class_folders, root_of, split_folders
from solution.data.source import Item, Source, UnreadableImage
from solution.data.tables import flat_folders

RENDERED_MARK = "rendered.json"


class FileSource(Source):
    """Pictures in class folders or flat folders with tables, wherever `files` reads them from."""

    def __init__(self, files: Files, stem: str) -> None:
        root = root_of(files)
        layout = split_folders(files, root) or flat_folders(files, root) or class_folders(files, root)
        if layout is None:
            raise InputError(f"{files.path}: no pictures found where they are expected: {EXPECTED}. {_seen(files)}")
        self.name = root.rstrip("/").rpartition("/")[2] or stem
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
