"""The table of contents of a packed file: which tensors there are and where their bytes lie. Nothing of it is believed.

header    what the checkpoint says
names, dtypes, shapes, codes, planes    one item per tensor; planes: the stream that each plane lies in
streams   [coder, bytes unpacked, bytes in the file] of each stretch of the file
crc       over all tensors: name, dtype, shape and bits
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.contracts import InputError
from solution.export.codecs import width_of
from solution.export.container import unframed
from solution.runtime import check_readable

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
