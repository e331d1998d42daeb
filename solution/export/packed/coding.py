"""Planes of bytes, coded: which of them share a model, and how each stream is made small.

A stream is kept as it is, or coded by zstandard, or by asymmetric numeral systems with its own model. The last (Duda,
2013, arXiv:1311.2540) come within a hundredth of a bit of the entropy, at about 40 million symbols a second; zstandard
is faster, and sees repetitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    _require(bool(levels.any()))
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
        raise InputError("a block does not hold what the table of contents lists")


_ALONE = 1 << 18
"""Planes of so many bytes have a stream of their own."""
_SMALL = 1 << 8
"""Planes of fewer bytes show too little by themselves: those of one label go together."""
_STREAM_BYTES = 24
_SYMBOL_BYTES = 0.4
"""Estimates of what a stream costs in itself, and what each symbol costs in its model."""
_ROUNDS = 3


def share(byte_planes: Sequence[np.ndarray], labels: Sequence[str]) -> list[int]:
    """The stream of each plane, numbered from 0. Planes of one label (same role in the net) are likely alike.

    Each unit (small planes of one label, or one large plane) goes where it costs least, the largest first; then all
    units choose again, since the first ones had no choice.
    """
    if not byte_planes:
        return []
    units = _units(byte_planes, labels)
    counts = np.stack([sum(np.bincount(byte_planes[index], minlength=256) for index in unit) for unit in units])
    alone = np.array([len(byte_planes[unit[0]]) >= _ALONE for unit in units])
    home = np.arange(len(units))
    streams = counts * alone[:, None].astype(np.float64)  # (S, 256); at first each unit has its own, and most are empty
    for round_ in range(_ROUNDS):
        for unit in np.argsort(-counts.sum(1)):
            if not alone[unit]:
                streams[home[unit]] -= counts[unit] if round_ else 0
                home[unit] = _cheapest(streams, counts[unit], alone)
                streams[home[unit]] += counts[unit]
    numbers = {int(stream): number for number, stream in enumerate(dict.fromkeys(home))}
    of_plane = {index: numbers[int(home[place])] for place, unit in enumerate(units) for index in unit}
    return [of_plane[index] for index in range(len(byte_planes))]


def _units(byte_planes: Sequence[np.ndarray], labels: Sequence[str]) -> list[list[int]]:
    units: dict[object, list[int]] = {}
    for index, (plane, label) in enumerate(zip(byte_planes, labels, strict=True)):
        units.setdefault(label if len(plane) < _SMALL else index, []).append(index)
    return list(units.values())


def _cheapest(streams: np.ndarray, own: np.ndarray, alone: np.ndarray) -> int:
    added = _cost(streams + own) - _cost(streams)
    added[alone] = np.inf
    return int(added.argmin())


def _cost(counts: np.ndarray) -> np.ndarray:
    """(S, 256) counts -> (S,) bytes of their streams: stored as they are, or coded by their own model."""
    total = counts.sum(1)
    bits = total * np.log2(np.maximum(total, 1)) - (counts * np.log2(np.maximum(counts, 1))).sum(1)
    coded = np.minimum(total, bits / 8 + _SYMBOL_BYTES * (counts > 0).sum(1))
    return np.where(total > 0, coded + _STREAM_BYTES, 0.0)


class Reader:
    """Hands out what decoded streams hold, a plane at a time, in the order in which it was joined."""

    def __init__(self, streams: Sequence[np.ndarray]) -> None:
        self._streams = streams
        self._starts = [0] * len(streams)

    def take(self, stream: int, count: int) -> np.ndarray:
        """The next `count` bytes of a stream. `InputError` past its end."""
        if not (0 <= stream < len(self._streams) and 0 <= count <= len(self._streams[stream]) - self._starts[stream]):
            raise InputError("the table of contents is damaged: it reads past the end of a stream")
        start = self._starts[stream]
        self._starts[stream] += count
        return self._streams[stream][start : start + count]

    def at_end(self) -> bool:
        """Whether all of all streams was taken."""
        return all(start == len(stream) for start, stream in zip(self._starts, self._streams, strict=True))


def joined(byte_planes: Sequence[np.ndarray], chosen: Sequence[int]) -> Iterator[np.ndarray]:
    """Each stream's planes, end to end, in the order of their tensors."""
    for stream in range(max(chosen, default=-1) + 1):
        yield np.concatenate([plane for plane, own in zip(byte_planes, chosen, strict=True) if own == stream])
