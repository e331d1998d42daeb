"""The files of a .zip, .tar, .tar.gz or .tgz, read in place: nothing is ever extracted to disk."""

from __future__ import annotations

import gzip
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO

from solution.contracts import InputError
from solution.data.files import Files, hidden
from solution.data.source import UnreadableImage, digest

MAX_FILE_BYTES = 256 << 20
_MAX_LINKS = 8
_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


class ZipFiles(Files):
    """A .zip archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folders = set()
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise _broken_archive(path, error) from None
        for member in self._zip.infolist():
            self._list(member)
        self.stamps = {name: (member.file_size, member.CRC) for name, member in self._members.items()}

    def _list(self, member: zipfile.ZipInfo) -> None:
        name = _safe_name(member.filename, self.path)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"{self.path}: the member {member.filename!r} is a link; pack the file itself")
        if member.flag_bits & 1:
            raise InputError(f"{self.path}: the member {member.filename!r} is encrypted; pack it without a password")
        if hidden(name):
            return
        if member.is_dir():
            self.folders.add(name)
        else:
            self._members[name] = member

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`, its checksum verified."""
        _refuse_huge(name, self._members[name].file_size)
        try:
            return self._zip.read(self._members[name])
        except _BROKEN as error:
            raise UnreadableImage(name, f"broken in the archive ({error})") from None


class TarFiles(Files):
    """A .tar archive, or a compressed one, which is best read in one pass (`read_each`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folders = set()
        self._mode = "gz" if path.suffix.lower() in (".gz", ".tgz") else ""
        self._members: dict[str, tarfile.TarInfo] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(path, f"r:{self._mode}") as tar:
                for member in tar:
                    self._list(member, links)
        except _BROKEN as error:
            raise _broken_archive(path, error) from None
        self._resolve(links)
        status = path.stat()
        self.stamps = {name: (member.size, member.mtime) for name, member in self._members.items()}
        self._stamp = (status.st_size, status.st_mtime_ns)

    def _list(self, member: tarfile.TarInfo, links: dict[str, str]) -> None:
        name = _safe_name(member.name, self.path)
        if member.issym() or member.islnk():
            links[name] = self._target(member, name)
        elif hidden(name):
            return
        elif member.isdir():
            self.folders.add(name)
        elif member.isfile():
            self._members[name] = member
        else:
            raise InputError(f"{self.path}: the member {member.name!r} is neither a file nor a folder; leave it out")

    def _target(self, member: tarfile.TarInfo, name: str) -> str:
        base = posixpath.dirname(name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname))
        if member.linkname.startswith("/") or target.split("/")[0] == "..":
            raise InputError(
                f"{self.path}: the member {member.name!r} is a link to {member.linkname!r}, outside the archive; "
                "pack the file itself (tar --dereference)"
            )
        return target

    def _resolve(self, links: dict[str, str]) -> None:
        for name in links:
            target = name
            for _ in range(_MAX_LINKS):
                target = links.get(target, target)
            if target in self._members and not hidden(name):
                self._members[name] = self._members[target]

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`."""
        try:
            return self._bytes_at(self._members[name], name)
        except _BROKEN as error:
            raise UnreadableImage(name, f"broken in the archive ({error})") from None

    def _bytes_at(self, member: tarfile.TarInfo, name: str) -> bytes:
        _refuse_huge(name, member.size)
        self._stream.seek(member.offset_data)
        data = self._stream.read(member.size)
        if len(data) < member.size:
            raise UnreadableImage(name, f"cut short in the archive ({len(data)} of {member.size} bytes)")
        return data

    @cached_property
    def _stream(self) -> IO[bytes]:
        # Stays open: a compressed stream goes forward cheaply, but starts afresh whenever it is opened.
        return gzip.open(self.path) if self._mode else self.path.open("rb")

    def read_each(self, names: Sequence[str]) -> Iterator[tuple[int, bytes | UnreadableImage]]:
        """Every member of `names` as (position, bytes or what is wrong), in the order of the archive: one pass."""
        order = sorted(range(len(names)), key=lambda position: self._members[names[position]].offset_data)
        for number, found in super().read_each([names[position] for position in order]):
            yield order[number], found

    def fingerprint(self) -> str:
        """A key of all members and of the archive's own size and time."""
        return digest([super().fingerprint(), self._stamp])


def _refuse_huge(name: str, num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise UnreadableImage(name, f"{num_bytes:,} bytes are more than {MAX_FILE_BYTES:,}: refused")


def _safe_name(name: str, archive: Path) -> str:
    """A member's path with forward slashes. `InputError` when it leads out of the archive."""
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/"):
        raise InputError(f"{archive}: the member {name!r} points outside the archive; pack it with relative paths")
    return posixpath.normpath(path)


def _broken_archive(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as an archive ({error}); it may be cut short: fetch or pack it again")
