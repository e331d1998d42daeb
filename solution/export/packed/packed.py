"""The packed file: a checkpoint's header and every tensor of its net, each in the smallest form that is still exact.

Reading gives back the very bits that were stored. Nothing is believed before it was checked: hash, lengths, sizes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution import checkpoint
from solution.contracts import InputError
from solution.export.packed import coding
from solution.export.packed.codecs import Coded, Numbers, decode, encode, width_of
from solution.export.packed.coding import Reader, joined, share
from solution.export.packed.container import MAGIC, Contents, Entry, contents, framed
from solution.runtime import written_whole

SUFFIX = ".packed"


def is_packed(path: Path) -> bool:
    """Whether there is a file at `path` that begins as a packed one does."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def save(path: Path, model: nn.Module, header: checkpoint.Header) -> None:
    """Write `model` and `header` to `path`, whole or not at all."""
    data = pack(model.state_dict(), header.to_fields())
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def load(path: Path, into: nn.Module | None = None) -> tuple[nn.Module, checkpoint.Header]:
    """The net, in evaluation mode, and its header. `InputError` for a file that is not a whole packed file.

    into  as in `checkpoint.load`
    """
    found = contents(path)
    header = checkpoint.Header.from_fields(found.header, path)
    model = checkpoint.rebuilt(header, path, into)
    return checkpoint.filled(model, unpacked(found), path).eval(), header


def read_header(path: Path) -> checkpoint.Header:
    """The header alone; no tensor is unpacked."""
    return checkpoint.Header.from_fields(contents(path).header, path)


def pack(state: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """A whole file that holds `header`, which must survive JSON, and exactly these tensors."""
    numbers = {name: _numbers(name, tensor) for name, tensor in state.items()}
    coded = {name: encode(value) for name, value in numbers.items()}
    byte_planes = [plane for value in coded.values() for plane in value.byte_planes]
    chosen = share(byte_planes, [label for name, value in coded.items() for label in _labels(name, value)])
    blocks = [(len(stream), *coding.encode(stream)) for stream in joined(byte_planes, chosen)]
    left = iter(chosen)
    table = {
        "header": header,
        "names": list(state),
        "dtypes": [value.dtype for value in numbers.values()],
        "shapes": [list(tensor.shape) for tensor in state.values()],
        "codes": [value.code for value in coded.values()],
        "planes": [[next(left) for _ in value.byte_planes] for value in coded.values()],
        "streams": [[name, count, len(data)] for count, name, data in blocks],
        "crc": _crc((name, value.dtype, state[name].shape, value.bits) for name, value in numbers.items()),
    }
    return framed(table, b"".join(data for _, _, data in blocks))


def _labels(name: str, coded: Coded) -> Iterator[str]:
    """The role of each plane: the last word of its tensor's name, how it is coded, and which plane it is."""
    role = f"{name.rpartition('.')[2]} {coded.code[0]} {len(coded.byte_planes)}"
    return (f"{role} {index}" for index in range(len(coded.byte_planes)))


def unpacked(found: Contents) -> dict[str, Tensor]:
    """All tensors by name. `InputError` when they are not those that were stored."""
    bits = [own for own, _ in _all_bits(found)]
    return {entry.name: _tensor(entry, own) for entry, own in zip(found.entries, bits, strict=True)}


def coded_bytes(found: Contents) -> dict[str, float]:
    """What each tensor takes in the file: its planes' shares of their streams."""
    return {entry.name: size for entry, (_, size) in zip(found.entries, _all_bits(found), strict=True)}


def _all_bits(found: Contents) -> list[tuple[np.ndarray, float]]:
    """Bits and coded bytes of each tensor."""
    reader = Reader(list(_decoded(found)))
    rates = [stream.num_bytes / stream.count if stream.count else 0.0 for stream in found.streams]
    parts = [_bits(entry, reader, rates) for entry in found.entries]
    stored = (
        (entry.name, entry.dtype, entry.shape, bits) for entry, (bits, _) in zip(found.entries, parts, strict=True)
    )
    if not reader.at_end() or _crc(stored) != found.crc:
        raise InputError("the tensors are not those that were stored: the file, or a library that reads it, is broken")
    return parts


def _decoded(found: Contents) -> Iterator[np.ndarray]:
    start = 0
    for stream in found.streams:
        yield coding.decode(stream.coder, found.data[start : start + stream.num_bytes], stream.count)
        start += stream.num_bytes


def _bits(entry: Entry, reader: Reader, rates: list[float]) -> tuple[np.ndarray, float]:
    left, size = iter(entry.byte_planes), 0.0

    def take(count: int) -> np.ndarray:
        nonlocal size
        stream = next(left, None)
        if stream is None:
            raise InputError(f"the table of contents is damaged: {entry.name} has too few planes")
        plane = reader.take(stream, count)
        size += count * rates[stream]
        return plane

    bits = decode(entry.code, entry.dtype, entry.count, take)
    if next(left, None) is not None:
        raise InputError(f"the table of contents is damaged: {entry.name} has too many planes")
    return bits, size


def _numbers(name: str, tensor: Tensor) -> Numbers:
    dtype = str(tensor.dtype).removeprefix("torch.")
    try:
        width = width_of(dtype)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    bits = flat.view(torch.uint8).numpy().view(f"<u{width}")
    row = tensor[0].numel() if tensor.dim() > 1 and len(tensor) else tensor.numel()
    return Numbers(dtype=dtype, bits=bits, row=row)


def _tensor(entry: Entry, bits: np.ndarray) -> Tensor:
    flat = torch.from_numpy(np.ascontiguousarray(bits).view(np.uint8))
    return flat.view(getattr(torch, entry.dtype)).reshape(entry.shape)


def _crc(parts: Iterable[tuple[str, str, Sequence[int], np.ndarray]]) -> int:
    """Over names, dtypes, shapes and bits: whatever the coders do, no other tensor is taken for the one stored."""
    crc = 0
    for name, dtype, shape, bits in parts:
        crc = zlib.crc32(f"{name} {dtype} {tuple(shape)}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(bits).view(np.uint8).data, crc)
    return crc
