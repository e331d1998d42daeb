"""A tensor as byte planes, in the way that makes it smallest; decoding gives back the same bits.

    bytes      the bytes of its numbers, plane by plane
    half       float32 numbers that float16 holds exactly
    codebook   at most 256 distinct numbers, and the index of each
    grid       float32 rows of small integers times a scale
    sparse     which numbers are not zero, and these

A code is a list that survives JSON: its name, its sizes, then the codes of the parts that it is made of.

Planes hold the first bytes of all values, then the second ones, and so on, most significant first. Floats are rotated
left by one bit, so that the sign comes last: the whole exponent then lies in the first planes, where few values occur
and an entropy coder wins, and the noise of the mantissa in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from solution.contracts import InputError
from solution.export.packed import grid

Take = Callable[[int], np.ndarray]
"""Gives the next plane of a tensor, of so many bytes."""

FLOATS = ("float64", "float32", "float16", "bfloat16")
_WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
           "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}  # fmt: skip
_GLANCE = 4096
"""So many numbers show whether a closer look at the whole tensor is worth its time."""
_PLANE_COST_BYTES = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbers:
    """What is coded: `bits`, (N,) unsigned integers of the width of `dtype`; in rows of `row` numbers."""

    dtype: str
    bits: np.ndarray
    row: int

    @property
    def is_float(self) -> bool:
        """Whether the sign is apart from the rest."""
        return self.dtype in FLOATS

    def as_rows(self, rows: int) -> np.ndarray:
        """(rows, N / rows) float32."""
        return self.bits.view(np.float32).reshape(rows, -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """A code and its planes, each (M,) uint8, in the order in which decoding takes them."""

    code: list
    byte_planes: list[np.ndarray]

    @property
    def cost(self) -> float:
        """Estimated bytes after entropy coding."""
        return sum(min(len(plane), _entropy_bytes(plane)) + _PLANE_COST_BYTES for plane in self.byte_planes)


def width_of(dtype: str) -> int:
    """Bytes of one number. `InputError` for a dtype that cannot be packed."""
    if dtype not in _WIDTHS:
        raise InputError(f"numbers of dtype {dtype} cannot be packed; there are {', '.join(_WIDTHS)}")
    return _WIDTHS[dtype]


def encode(numbers: Numbers) -> Coded:
    """The smallest of all codes that hold `numbers` exactly."""
    found = [_bytes(numbers)]
    if len(numbers.bits):
        found += [coded for try_ in (_half, _codebook, _grids, _sparse) for coded in try_(numbers)]
    return min(found, key=lambda coded: coded.cost)


def decode(code: list, dtype: str, count: int, take: Take) -> np.ndarray:
    """(count,) bits again. `InputError` for a code that makes no sense."""
    try:
        return _DECODERS[code[0]](code[1:], dtype, count, take)
    except InputError:
        raise
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"the table of contents is damaged: {str(code)[:80]} is no code") from error


def _bytes(numbers: Numbers) -> Coded:
    return Coded(code=["bytes"], byte_planes=to_byte_planes(numbers.bits, numbers.is_float))


def _un_bytes(code: list, dtype: str, count: int, take: Take) -> np.ndarray:
    return from_byte_planes([take(count) for _ in range(width_of(dtype))], dtype in FLOATS)


def _half(numbers: Numbers) -> Iterator[Coded]:
    if numbers.dtype != "float32" or not (_is_half(numbers.bits[:_GLANCE]) and _is_half(numbers.bits)):
        return
    with np.errstate(over="ignore"):
        bits = numbers.bits.view(np.float32).astype(np.float16).view(np.uint16)
    yield Coded(code=["half"], byte_planes=to_byte_planes(bits, rotate=True))


def _is_half(bits: np.ndarray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        values = bits.view(np.float32).astype(np.float16).astype(np.float32)
    return bool((values.view(np.uint32) == bits).all())


def _un_half(code: list, dtype: str, count: int, take: Take) -> np.ndarray:
    _require(dtype == "float32")
    bits = from_byte_planes([take(count) for _ in range(2)], rotate=True)
    with np.errstate(invalid="ignore"):
        return bits.view(np.float16).astype(np.float32).view(np.uint32)


def _codebook(numbers: Numbers) -> Iterator[Coded]:
    if len(np.unique(numbers.bits[:_GLANCE])) > min(256, len(numbers.bits) // 2 + 1):
        return
    book, index = np.unique(numbers.bits, return_inverse=True)
    if len(book) > 256:
        return
    values = _part(Numbers(dtype=numbers.dtype, bits=book, row=len(book)))
    byte_planes = [pack(index.astype(np.uint8), len(book))] if len(book) > 1 else []
    yield Coded(code=["codebook", len(book), values.code], byte_planes=values.byte_planes + byte_planes)


def _un_codebook(code: list, dtype: str, count: int, take: Take) -> np.ndarray:
    size, values = code
    _require(1 <= size <= 256)
    book = _un_part(values, dtype, size, take)
    index = _un_packed(size, count, take) if size > 1 else np.zeros(count, dtype=np.uint8)
    _require(int(index.max(initial=0)) < size)
    return book[index]


def _grids(numbers: Numbers) -> Iterator[Coded]:
    if numbers.dtype != "float32":
        return
    for rows in {1, len(numbers.bits) // max(numbers.row, 1)}:
        values = numbers.as_rows(rows)
        found = grid.find(values[:4, :_GLANCE]) and grid.find(values)
        if found is not None:
            yield _as_coded(found)


def _as_coded(found: grid.Grid) -> Coded:
    scales = _part(Numbers(dtype="float32", bits=found.scales.view(np.uint32), row=len(found.scales)))
    byte_planes = [*scales.byte_planes, found.codes.ravel()]
    if found.residuals is not None:
        byte_planes.append(found.residuals.ravel().view(np.uint8))
    return Coded(code=["grid", len(found.scales), int(found.residuals is None), scales.code], byte_planes=byte_planes)


def _un_grid(code: list, dtype: str, count: int, take: Take) -> np.ndarray:
    rows, exact, scales = code
    _require(dtype == "float32" and 1 <= rows <= count and count % rows == 0)
    scales = _un_part(scales, dtype, rows, take).view(np.float32)
    codes = take(count).reshape(rows, -1)
    residuals = None if exact else take(count).view(np.int8).reshape(rows, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return grid.Grid(codes=codes, scales=scales, residuals=residuals).values().view(np.uint32).ravel()


def _sparse(numbers: Numbers) -> Iterator[Coded]:
    there = numbers.bits != 0
    count = int(there.sum())
    if not 0 < count <= 0.8 * len(there):
        return
    values = _part(Numbers(dtype=numbers.dtype, bits=numbers.bits[there], row=count))
    yield Coded(code=["sparse", count, values.code], byte_planes=[pack(there.astype(np.uint8), 2), *values.byte_planes])


def _un_sparse(code: list, dtype: str, count: int, take: Take) -> np.ndarray:
    size, values = code
    there = _un_packed(2, count, take) != 0
    _require(int(there.sum()) == size)
    bits = np.zeros(count, dtype=f"<u{width_of(dtype)}")
    bits[there] = _un_part(values, dtype, size, take)
    return bits


def _part(numbers: Numbers) -> Coded:
    """A part of another code: one of the two plain ways."""
    return min([_bytes(numbers), *_half(numbers)], key=lambda coded: coded.cost)


def _un_part(code: list, dtype: str, count: int, take: Take) -> np.ndarray:
    _require(code in (["bytes"], ["half"]))
    return decode(code, dtype, count, take)


def _un_packed(size: int, count: int, take: Take) -> np.ndarray:
    return unpack(take(packed_length(size, count)), size, count)


def _entropy_bytes(plane: np.ndarray) -> float:
    counts = np.bincount(plane)
    counts = counts[counts > 0]
    return float((counts * np.log2(len(plane) / counts)).sum()) / 8


def _require(fine: bool) -> None:
    if not fine:
        raise InputError("the table of contents is damaged: sizes do not fit each other")


_DECODERS = {
    "bytes": _un_bytes,
    "half": _un_half,
    "codebook": _un_codebook,
    "grid": _un_grid,
    "sparse": _un_sparse,
}


_PART = 1 << 15


def to_byte_planes(bits: np.ndarray, rotate: bool) -> list[np.ndarray]:
    """(N,) unsigned integers to itemsize planes, each (N,) uint8."""
    if rotate:
        bits = _rotated(bits, 1)
    width = bits.dtype.itemsize
    return [(bits >> bits.dtype.type(8 * (width - 1 - index))).astype(np.uint8) for index in range(width)]


def from_byte_planes(byte_planes: list[np.ndarray], rotate: bool) -> np.ndarray:
    """The integers again. Done in parts that stay in the processor's cache, which is three times as fast."""
    width = len(byte_planes)
    bits = np.empty(len(byte_planes[0]), dtype=f"<u{width}")
    for start in range(0, len(bits), _PART):
        part = bits[start : start + _PART]
        columns = part.view(np.uint8).reshape(-1, width)
        for index, plane in enumerate(byte_planes):
            columns[:, width - 1 - index] = plane[start : start + _PART]
        if rotate:
            part[:] = _rotated(part, 8 * width - 1)
    return bits


def _rotated(bits: np.ndarray, by: int) -> np.ndarray:
    width, kind = 8 * bits.dtype.itemsize, bits.dtype.type
    return (bits << kind(by)) | (bits >> kind(width - by))


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
