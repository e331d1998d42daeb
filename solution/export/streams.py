"""Which planes are coded together: those whose bytes are spread alike share one model.

A small net has hundreds of planes of a few dozen bytes, and a model of its own costs each of them more than it saves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from solution.contracts import InputError

_ALONE = 1 << 18
"""Planes of so many bytes have a stream of their own."""
_SMALL = 1 << 8
"""Planes of fewer bytes say too little by themselves: those of one label go together."""
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
