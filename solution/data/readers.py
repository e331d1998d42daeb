"""Open a data set, whatever kind it is: `open_source("../photos.tar")`."""

from __future__ import annotations

from pathlib import Path

from solution.contracts import InputError
from solution.data.archives import TarFiles, ZipFiles
from solution.data.arrays import open_npz
from solution.data.file_source import FileSource
from solution.data.files import FolderFiles
from solution.data.source import Item, Source, UnreadableImage
from solution.data.torchvision_sets import NAMES, open_torchvision

__all__ = ["Item", "Source", "UnreadableImage", "open_source"]

_TARS = (".tar", ".tar.gz", ".tgz")


def open_source(path: str | Path) -> Source:
    """The data set at `path`: a folder, .zip, .tar, .tar.gz, .tgz or .npz, or the name of one of torchvision's.

    Raises `InputError` when there is none, or when it is laid out in no way we know.
    """
    where = Path(path).expanduser()
    kind = where.name.lower()
    if where.is_dir():
        return FileSource(FolderFiles(where), where.resolve().name)
    if str(path) in NAMES:
        return open_torchvision(str(path))
    if not where.is_file():
        raise InputError(f"no data set at {path}: give a folder, an archive, an .npz file, or {', '.join(NAMES)}")
    if kind.endswith(_TARS):
        return FileSource(TarFiles(where), _stem(where))
    if kind.endswith(".zip"):
        return FileSource(ZipFiles(where), _stem(where))
    if kind.endswith(".npz"):
        return open_npz(where)
    raise InputError(f"{path}: a file of unknown kind; data sets are folders, .zip, {', '.join(_TARS)} or .npz")


def _stem(path: Path) -> str:
    name = path.name
    return next((name[: -len(end)] for end in (".tar.gz", *_TARS, ".zip") if name.lower().endswith(end)), name)
