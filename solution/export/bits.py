"""Small numbers, several to a byte."""

from __future__ import annotations

import numpy as np

_LEAST = 1 << 16
"""Fewer numbers stay one a byte: an entropy coder gains nothing from pairs whose model costs more than they do."""


def per_byte(size: int, count: int) -> int:
    """How many of `count` numbers below `size` share a byte: 8, 4, 2 or 1."""
    if count < _LEAST:
        return 1
    return next((share for share in (8, 4, 2) if size <= 1 << (8 // share)), 1)


def packed_length(size: int, count: int) -> int:
    """Bytes that `pack` makes of `count` numbers below `size`."""
    return -(-count // per_byte(size, count))


def pack(numbers: np.ndarray, size: int) -> np.ndarray:
    """(N,) uint8 below `size` to (packed_length,) uint8; the first number is in the highest bits."""
    share = per_byte(size, len(numbers))
    padded = np.zeros((packed_length(size, len(numbers)), share), dtype=np.uint8)
    padded.ravel()[: len(numbers)] = numbers
    return np.bitwise_or.reduce(padded << _shifts(share), axis=1) if share > 1 else numbers


def unpack(packed: np.ndarray, size: int, count: int) -> np.ndarray:
    """The numbers again."""
    share = per_byte(size, count)
    if share == 1:
        return packed
    mask = np.uint8((1 << (8 // share)) - 1)
    table = (np.arange(256, dtype=np.uint8)[:, None] >> _shifts(share)) & mask  # (256, share)
    wide = table.view(f"u{share}").ravel()  # (256,): all numbers of a byte at once
    return wide.take(packed).view(np.uint8)[:count]


def _shifts(share: int) -> np.ndarray:
    return np.arange(share - 1, -1, -1, dtype=np.uint8) * np.uint8(8 // share)
