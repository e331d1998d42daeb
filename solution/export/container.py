"""The frame of a packed file: what it is, how long its parts are, and a hash over all of it.

4 bytes   FWPK
1 byte    version of the format
4 bytes   length of the table of contents        little-endian, as all numbers are
8 bytes   length of the streams
32 bytes  SHA-256 of all that is before and after it
          table of contents (JSON, zstandard), streams
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from solution.contracts import InputError
from solution.export.coder import squeezed, unsqueezed

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
