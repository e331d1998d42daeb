"""A stream of bytes, entropy-coded: as it is, by zstandard, or by asymmetric numeral systems with its own model.

Asymmetric numeral systems (Duda, 2013, arXiv:1311.2540) come within a hundredth of a bit of the entropy, at about 40
million symbols a second; zstandard is faster, and sees repetitions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from solution.contracts import InputError

Buffer = bytes | memoryview
STORED, ZSTD, ANS = "stored", "zstd", "ans"
_LEVELS_PER_OCTAVE = 4
_MOST_ANS_BYTES = 1 << 20
_WORTH_ANS_BYTES = 1 << 18
"""Longer streams are left to zstandard, which is more than ten times as fast and a hundredth less dense: unpacking a
large net would otherwise wait for them. Reading takes four times as much."""
_QUICK = 1
"""The level of zstandard that is quickest, and densest where symbols are unequally frequent but nothing repeats."""


def encode(values: np.ndarray) -> tuple[str, bytes]:
    """(N,) uint8 -> the coder that makes it smallest, and its bytes."""
    data = values.tobytes()
    found = {STORED: data, ZSTD: squeezed(data)}
    if 0 < len(values) <= _WORTH_ANS_BYTES:
        found[ANS] = _ans_encode(values)
    name = min(found, key=lambda name: len(found[name]))
    return name, found[name]


def decode(name: str, data: Buffer, count: int) -> np.ndarray:
    """`count` bytes (uint8) from `data`. `InputError` when it does not hold just as many."""
    if name == STORED:
        _require(len(data) == count)
        return np.frombuffer(data, dtype=np.uint8)
    if name == ZSTD:
        return np.frombuffer(unsqueezed(data, count), dtype=np.uint8)
    _require(name == ANS and 0 < count <= _MOST_ANS_BYTES)
    return _ans_decode(data, count)


def unsqueezed(data: Buffer, most: int, exact: bool = True) -> bytes:
    """What `squeezed` was given: just `most` bytes, or at most these. Nothing larger is ever allocated."""
    import zstandard

    try:
        size = zstandard.frame_content_size(data)
        _require(size == most if exact else 0 <= size <= most)
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max(most, 1))
    except zstandard.ZstdError as error:
        raise InputError(f"a block cannot be decompressed ({error})") from error


def squeezed(data: bytes) -> bytes:
    """`data` after zstandard."""
    import zstandard

    # The checksum of the whole file makes those of its blocks needless.
    quick = zstandard.ZstdCompressor(level=_QUICK, write_checksum=False).compress(data)
    if len(quick) >= len(data):
        return quick  # noise, such as the last bits of floats: no level finds anything in it
    level = 19 if len(data) <= _MOST_ANS_BYTES else 6
    return min(quick, zstandard.ZstdCompressor(level=level, write_checksum=False).compress(data), key=len)


def _ans_encode(values: np.ndarray) -> bytes:
    import constriction

    levels = _levels(np.bincount(values))
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(values.astype(np.int32), _model(levels))
    table = squeezed(np.diff(levels, prepend=0).astype(np.uint8).tobytes())
    return bytes([len(table) & 255, len(table) >> 8, len(levels) - 1]) + table + coder.get_compressed().tobytes()


def _ans_decode(data: Buffer, count: int) -> np.ndarray:
    import constriction

    _require(len(data) >= 3)
    start = 3 + data[0] + 256 * data[1]
    _require(len(data) >= start and (len(data) - start) % 4 == 0)
    steps = np.frombuffer(unsqueezed(data[3:start], data[2] + 1), dtype=np.uint8)
    levels = np.cumsum(steps, dtype=np.uint8)
    _require(levels.any())
    words = np.frombuffer(data[start:], dtype="<u4").astype(np.uint32)
    _require(len(words) == 0 or words[-1] != 0)
    coder = constriction.stream.stack.AnsCoder(words)
    values = coder.decode(_model(levels), count).astype(np.uint8)
    _require(coder.is_empty())
    return values


def _levels(counts: np.ndarray) -> np.ndarray:
    """How often each symbol occurs, on a logarithmic scale that fits a byte; 0 is never."""
    counts = np.pad(counts, (0, max(0, 2 - len(counts))))
    logs = np.log2(np.maximum(counts, 1))
    return np.where(counts > 0, 1 + np.rint(_LEVELS_PER_OCTAVE * logs), 0).astype(np.uint8)


def _model(levels: np.ndarray) -> Any:
    import constriction

    weights = np.where(levels > 0, np.exp2((levels.astype(np.float64) - 1) / _LEVELS_PER_OCTAVE), 0.0)
    return constriction.stream.model.Categorical(weights / weights.sum(), lazy=False, perfect=False)


def _require(fine: bool) -> None:
    if not fine:
        raise InputError("a block does not hold what the table of contents says")
