"""The files of a .zip, .tar, .tar.gz or .tgz, read in place: nothing is ever extracted to disk.

An archive is read to its true end, or refused: a damaged one never passes for a smaller data set.
"""

from __future__ import annotations

import gzip
import posixpath
import re
import stat
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO

from solution.contracts import InputError
from solution.data.source import Files, UnreadableImage, changed_stamp, digest, hidden, one_form, refuse_huge
from solution.runtime import limit
from solution.text import printable

_MAX_LINKS = 8
BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError, RuntimeError,
          ValueError, OverflowError, struct.error)  # fmt: skip
"""What the readers of the standard library raise where an archive is damaged."""
_LOCAL, _LOCAL_BYTES = b"PK\3\4", 30
_END, _WIDE_END, _MOST_END_BYTES = b"PK\5\6", b"PK\6\6", 22 + 0xFFFF + 20 + 56
_NAME_IS_UTF8 = 0x800
_UNICODE_PATH = 0x7075


class ZipFiles(Files):
    """A .zip archive.

    encoding  of the names that are not marked as UTF-8; None recognizes it
    """

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.path = path
        self.folders = set()
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            count = _count(path)
            refuse_many(path, count)
            self._zip = zipfile.ZipFile(path)
            members = self._zip.infolist()
            refuse_bomb(path, sum(member.file_size for member in members), most_unpacked(path))
            self._check(members, count)
        except InputError:
            raise
        except BROKEN as error:
            raise _broken_archive(path, error) from None
        for member, name in zip(members, _names(path, members, encoding), strict=True):
            self._list(member, name)
        self.stamps = {name: (member.file_size, member.CRC) for name, member in self._members.items()}

    def _check(self, members: Sequence[zipfile.ZipInfo], count: int) -> None:
        """Raise unless the list of members is whole and agrees with the header of each."""
        if len(members) != count:
            raise zipfile.BadZipFile(f"{len(members)} of {count} members are listed")
        end = 0
        with self.path.open("rb") as file:
            for member in sorted(members, key=lambda member: member.header_offset):
                if member.header_offset < end:
                    raise zipfile.BadZipFile(f"the member {member.filename!r} lies inside another one")
                end = member.header_offset + _LOCAL_BYTES + member.compress_size
                file.seek(member.header_offset)
                local = file.read(_LOCAL_BYTES)
                length = int.from_bytes(local[26:28], "little")
                if local[:4] != _LOCAL or file.read(length) != _raw_name(member):
                    raise zipfile.BadZipFile(f"the header of the member {member.filename!r} is damaged")

    def _list(self, member: zipfile.ZipInfo, written: str) -> None:
        name = one_form(_path_inside(written, self.path), self._members)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"{self.path}: the member {written!r} is a link; pack the file itself")
        if member.flag_bits & 1:
            raise InputError(f"{self.path}: the member {written!r} is encrypted; pack it without a password")
        if hidden(name):
            return
        if written.endswith("/"):
            self.folders.add(name)
        else:
            self._members[name] = member

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`, its checksum verified."""
        refuse_huge(name, self._members[name].file_size)
        try:
            return self._zip.read(self._members[name])
        except BROKEN as error:
            raise _broken_archive(self.path, f"{name}: {error}") from None

    def open(self, name: str) -> IO[bytes]:
        """The member `name` as a stream, whatever its size; its checksum is verified at its end."""
        return self._zip.open(self._members[name])

    def size(self, name: str) -> int:
        """Bytes of the member `name`, unpacked."""
        return self._members[name].file_size

    def offset(self, name: str) -> int | None:
        """Where in the file the bytes of the member `name` begin; None when they are compressed."""
        member = self._members[name]
        with self.path.open("rb") as file:
            file.seek(member.header_offset)
            lengths = struct.unpack("<HH", file.read(_LOCAL_BYTES)[26:])
        stored = member.compress_type == zipfile.ZIP_STORED
        return member.header_offset + _LOCAL_BYTES + sum(lengths) if stored else None


class TarFiles(Files):
    """A .tar archive, or a compressed one, which is best read in one pass (`read_each`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folders = set()
        self._packed = path.suffix.lower() in (".gz", ".tgz")
        self._members: dict[str, tarfile.TarInfo] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:gz" if self._packed else "r:") as tar:
                most = most_unpacked(path) if self._packed else sys.maxsize
                for number, member in enumerate(tar, start=1):
                    refuse_many(path, number)
                    refuse_bomb(path, member.offset_data + member.size, most)
                    self._list(member, links)
                _require_end(tar, path, most)
        except InputError:
            raise
        except BROKEN as error:
            raise _broken_archive(path, error) from None
        self._resolve(links)
        status = path.stat()
        self.stamps = {name: (member.size, member.mtime) for name, member in self._members.items()}
        self._stamp = changed_stamp(status)

    def _list(self, member: tarfile.TarInfo, links: dict[str, str]) -> None:
        name = one_form(_path_inside(member.name, self.path), self._members)
        if member.issym() or member.islnk():
            links[name] = self._target(member, name)
        elif hidden(name):
            return
        elif member.isdir():
            self.folders.add(name)
        elif member.isfile() and not member.issparse():
            self._members[name] = member
        else:
            raise InputError(f"{self.path}: the member {member.name!r} is neither a file nor a folder; leave it out")

    def _target(self, member: tarfile.TarInfo, name: str) -> str:
        base = posixpath.dirname(name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, one_form(member.linkname)))
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
        member = self._members[name]
        refuse_huge(name, member.size)
        try:
            self._stream.seek(member.offset_data)
            data = self._stream.read(member.size)
        except BROKEN as error:
            raise _broken_archive(self.path, f"{name}: {error}") from None
        if len(data) < member.size:
            raise UnreadableImage(name, f"cut short in the archive ({len(data)} of {member.size} bytes)")
        return data

    @cached_property
    def _stream(self) -> IO[bytes] | gzip.GzipFile:
        # Stays open: a compressed stream goes forward cheaply, but starts afresh whenever it is opened.
        return gzip.open(self.path) if self._packed else self.path.open("rb")

    def read_each(self, names: Sequence[str]) -> Iterator[tuple[int, bytes | UnreadableImage]]:
        """Every member of `names` as (position, bytes or what is wrong), in the order of the archive: one pass."""
        order = sorted(range(len(names)), key=lambda position: self._members[names[position]].offset_data)
        for number, found in super().read_each([names[position] for position in order]):
            yield order[number], found

    def fingerprint(self) -> str:
        """A key of all members and of the archive's own size and time."""
        return digest([super().fingerprint(), self._stamp])


def refuse_many(path: Path, count: int) -> None:
    """`InputError` for more members than can be listed in reasonable time and memory."""
    most = limit("MEMBERS", 300_000)
    if count > most:
        raise InputError(
            f"{path} has more than {most:,} members, which would take long to list: unpack it and name the folder, or "
            f"set SOLUTION_MAX_MEMBERS to a larger number"
        )


def most_unpacked(path: Path) -> int:
    """Bytes that a compressed archive may unpack to: pictures hardly shrink, so that more is no data set."""
    return limit("UNPACKED_BYTES", max(1 << 30, 50 * path.stat().st_size))


def refuse_bomb(path: Path, num_bytes: int, most: int) -> None:
    """`InputError` for an archive that unpacks to more than `most` bytes."""
    if num_bytes > most:
        raise InputError(
            f"{path} unpacks to more than {most:,} bytes, far more than pictures do: unpack it yourself and name the "
            "folder, or set SOLUTION_MAX_UNPACKED_BYTES to a larger number"
        )


def _count(path: Path) -> int:
    """How many members a .zip has by its own last record, which is read before the list of them is."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _MOST_END_BYTES, 0))
        tail = file.read()
    at, wide = tail.rfind(_END), tail.rfind(_WIDE_END)
    if at < 0 or len(tail) - at < 22 + int.from_bytes(tail[at + 20 : at + 22], "little"):
        raise zipfile.BadZipFile("its end is missing")
    if len(tail) - at > 22 + int.from_bytes(tail[at + 20 : at + 22], "little"):
        raise zipfile.BadZipFile("something follows its end")
    count = int.from_bytes(tail[at + 10 : at + 12], "little")
    return int.from_bytes(tail[wide + 32 : wide + 40], "little") if count == 0xFFFF and wide >= 0 else count


def _require_end(tar: tarfile.TarFile, path: Path, most: int) -> None:
    """Raise unless nothing but zeros follows the last member, to the end of the file: a header that is damaged looks
    like the end to `tarfile`. In a compressed file this verifies the checksum, too.
    """
    stream, length = tar.fileobj, 0
    stream.seek(tar.offset)
    while block := stream.read(1 << 20):
        length += len(block)
        refuse_bomb(path, tar.offset + length, most)
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"a header is damaged, or something follows the end, after byte {tar.offset:,}")
    if length < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")


def _path_inside(name: str, archive: Path) -> str:
    """A member's path with forward slashes. `InputError` when it leads out of the archive."""
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/"):
        raise InputError(f"{archive}: the member {name!r} points outside the archive; pack it with relative paths")
    return posixpath.normpath(path)


def _raw_name(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & _NAME_IS_UTF8 else "cp437")


def _names(path: Path, members: Sequence[zipfile.ZipInfo], encoding: str | None) -> list[str]:
    """The name of each member, whatever the system that packed them."""
    raw = [_raw_name(member) for member in members]
    marked = [bool(member.flag_bits & _NAME_IS_UTF8) for member in members]
    unmarked = [name for name, is_utf8 in zip(raw, marked, strict=True) if not is_utf8 and not name.isascii()]
    try:
        used = encoding or (_recognized(path, unmarked) if unmarked else "utf-8")
        return [
            _unicode_path(member) or name.decode("utf-8" if is_utf8 or name.isascii() else used)
            for member, name, is_utf8 in zip(members, raw, marked, strict=True)
        ]
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(
            f"{path}: its names cannot be read as {encoding or 'text'} ({error}); name their encoding: "
            "--zip-encoding gbk (shift_jis, big5, euc_kr, cp866 ...), or data.zip_encoding in a recipe"
        ) from None


def _unicode_path(member: zipfile.ZipInfo) -> str | None:
    """The UTF-8 name that Info-ZIP, 7-Zip and WinRAR add to one in an older encoding, if it is there and fits."""
    extra = member.extra
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        content, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and content[1:5] == struct.pack("<L", zlib.crc32(_raw_name(member))):
            return content[5:].decode("utf-8")
    return None


def _recognized(path: Path, names: Sequence[bytes]) -> str:
    """The encoding of these names: UTF-8 where they are that, else the one in which most characters are usual ones.

    Names are too short for statistics. But every old encoding keeps its usual characters in a part of their own: few
    texts fall into the usual part of another.
    """
    text = b"\n".join(dict.fromkeys(part for name in names for part in name.split(b"/") if not part.isascii()))
    try:
        text.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        best = max(USUAL, key=lambda encoding: _share_usual(text, encoding))
    example = printable(text.split(b"\n")[0].decode(best, errors="replace"))
    warnings.warn(
        f"{path}: names are not in UTF-8 and are read as {best}, such as {example}; where that is wrong, name their "
        "encoding: --zip-encoding gbk (shift_jis, big5, euc_kr, cp866 ...), or data.zip_encoding in a recipe",
        stacklevel=2,
    )
    return best


def _share_usual(text: bytes, encoding: str) -> float:
    try:
        decoded = text.decode(encoding)
    except UnicodeDecodeError:
        return -1.0
    if encoding == "cp866":  # no word has letters of two alphabets: this is another's accent
        decoded = re.sub(r"(?<=[A-Za-z])[^\x00-\x7f]|[^\x00-\x7f](?=[A-Za-z])", "\u2592", decoded)
    others = [char for char in decoded if not char.isascii()]
    strict = "gb2312" if encoding == "gb18030" else "euc_kr" if encoding == "cp949" else encoding
    usual = re.compile(USUAL[encoding])
    return sum(bool(usual.fullmatch(char.encode(strict, errors="ignore"))) for char in others) / max(len(others), 1)


USUAL = {
    "cp949": rb"[\xb0-\xc8].",  # the usual syllables of Hangul
    "gb18030": rb"[\xb0-\xd7].",  # the usual simplified characters
    "big5": rb"[\xa4-\xc6].",  # the usual traditional characters
    "shift_jis": rb"\x82[\x9f-\xf1]|\x83[\x40-\x96]|\x81[\x58\x5b]|[\x88-\x97].",  # kana and usual kanji
    "cp866": rb"[\x80-\xaf\xe0-\xf1]",  # Cyrillic letters
    "cp1252": rb"[\xc0-\xd6\xd8-\xf6\xf8-\xff]",  # Western letters of Windows
    "cp437": rb"[\x80-\x9a\xa0-\xa5\xe1]",  # and of DOS
}
"""{encoding of names that are not UTF-8: the codes of its usual characters}."""


def _broken_archive(path: Path, error: Exception | str) -> InputError:
    return InputError(f"{path}: cannot be read as an archive ({error}); it may be cut short: fetch or pack it again")
