"""The files of a folder: their names and their bytes. Archives look the same: see `archives`."""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from solution.contracts import InputError
from solution.data.source import UnreadableImage, digest

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
                    self.stamps[name] = (status.st_size, status.st_mtime_ns)
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


def limit(name: str, usual: int) -> int:
    """A limit on what is read, which SOLUTION_MAX_<name> in the environment raises."""
    text = os.environ.get(f"SOLUTION_MAX_{name}", str(usual))
    if not text.isdecimal():
        raise InputError(f"SOLUTION_MAX_{name} must be a whole number, got {text!r}")
    return int(text)


def hidden(name: str) -> bool:
    """Whether a path is nobody's data: a dot file, or what macOS and Windows leave behind."""
    return any(part.startswith(".") or part in _JUNK for part in name.split("/"))
