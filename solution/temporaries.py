"""Hidden files and folders that exist while something is being written: named so that the next start knows which
ones a killed process left behind, and known to this process so that a signal can remove them at once.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_NAME = re.compile(r"(?:^|\.)fw-([0-9a-f]{8})-([0-9]+)-")
_MOST_LETTERS = 100
_MOST_PARENT_BYTES = 48
"""Of 108 for the name of a socket; ours and multiprocessing's own folder and file take the rest."""
_live: set[Path] = set()
_swept: set[Path] = set()


@contextlib.contextmanager
def file_beside(path: Path) -> Iterator[Path]:
    """An empty hidden file next to `path` with its suffix, removed at the end if it is still there."""
    sweep(path.parent)
    file = _named(path.parent, f".{path.name[:_MOST_LETTERS]}.", path.suffix)
    try:
        file.touch(0o600, exist_ok=False)
        yield file
    finally:
        _remove(file)


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """An empty hidden folder next to `path`, removed at the end if it is still there."""
    sweep(path.parent)
    folder = _named(path.parent, f".{path.name[:_MOST_LETTERS]}.")
    try:
        folder.mkdir(0o700)
        yield folder
    finally:
        _remove(folder)


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Inside: all that this process and its children put into the system's temporary folder lies in one folder of
    their own, which is removed at the end.
    """
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError:  # a full disk: who needs such a folder will say so
        yield
        return
    # That of the process which started this one will do; and names of sockets, which lie inside, must stay short.
    if _NAME.search(parent.name) or len(os.fsencode(parent)) > _MOST_PARENT_BYTES:
        yield
        return
    sweep(parent)
    folder = _named(parent)
    folder.mkdir(0o700)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable
        if any(folder.glob("pymp-*")):  # multiprocessing removes a folder of its own when Python ends, at -100
            from multiprocessing.util import Finalize

            _live.discard(folder)  # the end of another command is none of this process
            Finalize(None, _remove, args=(folder,), exitpriority=-200)
        else:
            _remove(folder)


def final_name(path: Path) -> str:
    """The name that a file from `file_beside` is given at the end; that of any other file is its own."""
    found = _NAME.search(path.name)
    return path.name[1 : found.start()] if found and path.name.startswith(".") else path.name


def remove_all(but: str = "") -> None:
    """Remove what this process holds, `but` one: it is about to end."""
    for path in tuple(_live):
        if str(path) != but:
            _remove(path)


def sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left in `folder`; once for each folder and process."""
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            found = _NAME.search(entry.name)
            if found and found[1] == _HOST and _is_stale(int(found[2]), entry):
                _remove(entry)


def _named(parent: Path, start: str = "", suffix: str = "") -> Path:
    """A name that nothing has, known to `remove_all` before anything has it: a signal may come at any moment."""
    path = parent / f"{start}fw-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"
    _live.add(path)
    return path


def _remove(path: Path) -> None:
    """The file or folder, and files of the same stem: some formats write a second one next to the first."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        for file in (path, *path.parent.glob(f"{_escaped(path.stem)}.*")):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
    _live.discard(path)


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _is_stale(pid: int, path: Path) -> bool:
    """Whether the process is gone, or its number was given to a process that began after `path` was made."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError):  # Linux
        return Path(f"/proc/{pid}").stat().st_ctime > path.stat().st_mtime + 60
    return False
