"""The frame of a packed file and its table of contents. Nothing of either is believed before it was checked.

4 bytes   FWPK
1 byte    version of the format
4 bytes   length of the table of contents        little-endian, as all numbers are
8 bytes   length of the streams
32 bytes  SHA-256 of all that is before and after it
          table of contents (JSON, zstandard), streams

The table lists the tensors and where their bytes lie:

header    that of the checkpoint
names, dtypes, shapes, codes, planes    one item per tensor; planes: the stream that each plane lies in
streams   [coder, bytes unpacked, bytes in the file] of each stretch of the file
crc       over all tensors: name, dtype, shape and bits
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.contracts import InputError
from solution.export.packed.codecs import width_of
from solution.export.packed.coding import squeezed, unsqueezed
from solution.runtime import check_readable

MAGIC = b"FWPK"
VERSION = 1
_START = struct.Struct("<4sBIQ")
_HASH_BYTES = 32
FRAME_BYTES = _START.size + _HASH_BYTES
_MOST_TABLE_BYTES = 1 << 22


def framed(table: dict[str, Any], streams: bytes) -> bytes:
    """The bytes of a whole file."""
    text = squeezed(json.dumps(table, separators=(",", ":")).encode())
    start = _START.pack(MAGIC, VERSION, len(text), len(streams))
    return b"".join([start, _hash(start, text, streams), text, streams])


def unframed(data: bytes, path: Path) -> tuple[dict[str, Any], memoryview]:
    """The table and the streams. `InputError` for a file that is of another kind, newer, cut short or changed."""
    if not data.startswith(MAGIC):
        raise InputError(f"{path} is not a packed file of this project")
    if len(data) < FRAME_BYTES:
        raise InputError(f"{path} is cut short: it has {len(data)} bytes; copy it again")
    _, version, table_bytes, stream_bytes = _START.unpack_from(data)
    if version > VERSION:
        raise InputError(f"{path} has format version {version}, newer than {VERSION}: update the project")
    wanted = FRAME_BYTES + table_bytes + stream_bytes
    if len(data) != wanted:
        raise InputError(f"{path} has {len(data):,} bytes and should have {wanted:,}: it is damaged; copy it again")
    view = memoryview(data)
    body = view[FRAME_BYTES:]
    if _hash(view[: _START.size], body) != view[_START.size : FRAME_BYTES]:
        raise InputError(f"{path} is damaged (its SHA-256 is not the one that it names); copy or pack it again")
    return _table(bytes(body[:table_bytes])), body[table_bytes:]


def _table(text: bytes) -> dict[str, Any]:
    try:
        table = json.loads(unsqueezed(text, _MOST_TABLE_BYTES, exact=False))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the table of contents is damaged ({error})") from error
    if not isinstance(table, dict):
        raise InputError("the table of contents is damaged: it is no table")
    return table


def _hash(*parts: bytes | memoryview) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.digest()


_SLACK_BYTES = 1 << 24
_MOST_RATIO = 1024
"""A file that claims to unpack to more than this many times its size, and the slack, is not believed."""
_MOST_DIMENSIONS = 8


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a packed file: what it is, and its code with the streams that its planes lie in."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    code: list
    byte_planes: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (*self.shape, *self.byte_planes)
        fine = isinstance(self.name, str) and isinstance(self.dtype, str) and isinstance(self.code, list)
        if not fine or len(self.shape) > _MOST_DIMENSIONS or not all(_is_count(number) for number in numbers):
            raise InputError("the table of contents is damaged: an entry describes no tensor")

    @property
    def count(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor in memory."""
        return self.count * width_of(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stretch of the file: how it is coded, the bytes that it unpacks to, and its own."""

    coder: str
    count: int
    num_bytes: int

    def __post_init__(self) -> None:
        if not (isinstance(self.coder, str) and _is_count(self.count) and _is_count(self.num_bytes)):
            raise InputError("the table of contents is damaged: an entry describes no stream")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A packed file, checked but not yet unpacked: `data` holds the streams, after `frame_bytes` of the rest."""

    header: dict[str, Any]
    entries: tuple[Entry, ...]
    streams: tuple[Stream, ...]
    crc: int
    data: memoryview
    frame_bytes: int


def contents(path: Path) -> Contents:
    """The table of a packed file, after all checks that need no unpacking."""
    path = Path(path)
    check_readable(path, "packed file")
    try:
        return parse(path.read_bytes(), path)
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def parse(data: bytes, path: Path = Path("packed data")) -> Contents:
    """The same of bytes."""
    table, rest = unframed(data, path)
    try:
        columns = zip(*(table[name] for name in ("names", "dtypes", "shapes", "codes", "planes")), strict=True)
        entries = tuple(
            Entry(name=name, dtype=dtype, shape=tuple(shape), code=code, byte_planes=tuple(byte_planes))
            for name, dtype, shape, code, byte_planes in columns
        )
        streams = tuple(Stream(coder=name, count=count, num_bytes=size) for name, count, size in table["streams"])
        header, crc = table["header"], table["crc"]
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the table of contents is damaged ({error!r})") from error
    frame_bytes = len(data) - len(rest)
    found = Contents(header=header, entries=entries, streams=streams, crc=crc, data=rest, frame_bytes=frame_bytes)
    _check_sizes(found, len(data))
    return found


def _check_sizes(found: Contents, num_bytes: int) -> None:
    most = _SLACK_BYTES + _MOST_RATIO * num_bytes
    for claimed in (sum(entry.num_bytes for entry in found.entries), sum(stream.count for stream in found.streams)):
        if claimed > most:
            raise InputError(f"a file of {num_bytes:,} bytes cannot hold the {claimed:,} bytes that its table claims")
    if sum(stream.num_bytes for stream in found.streams) != len(found.data):
        raise InputError("the table of contents is damaged: its streams are not as long as the file")
    if len({entry.name for entry in found.entries}) != len(found.entries):
        raise InputError("the table of contents is damaged: a tensor's name occurs twice")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
