"""What lies in any file of ours, layer by layer: shape, numbers, bits of each number, bytes, share."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from solution import checkpoint
from solution.contracts import InputError
from solution.export import openvino_file, packed, pt2_file
from solution.export.extras import needed
from solution.export.metadata import KEY, Metadata
from solution.runtime import check_readable


@dataclass(frozen=True, kw_only=True)
class Line:
    """One tensor, or all tensors of one layer, with the shape of the largest."""

    name: str
    shape: tuple[int, ...]
    count: int
    num_bytes: float

    @property
    def bits(self) -> float:
        """Bits that each number takes in the file."""
        return 8 * self.num_bytes / self.count if self.count else 0.0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A file's kind, its tensors, and all of its bytes; what the tensors do not take is description."""

    kind: str
    lines: tuple[Line, ...]
    num_bytes: int

    def layers(self) -> tuple[Line, ...]:
        """One line per layer: tensors whose names differ in their last word alone."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            found.setdefault(_layer(line.name), []).append(line)
        return tuple(_sum(name, lines) for name, lines in found.items())

    @property
    def description_bytes(self) -> float:
        """Bytes of everything but the tensors: names, graph, header."""
        return self.num_bytes - sum(line.num_bytes for line in self.lines)


def _layer(name: str) -> str:
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0] or name


def _sum(name: str, lines: list[Line]) -> Line:
    largest = max(lines, key=lambda line: line.count)
    return Line(
        name=name,
        shape=largest.shape,
        count=sum(line.count for line in lines),
        num_bytes=sum(line.num_bytes for line in lines),
    )


def listing(path: Path) -> Listing:
    """The listing of a checkpoint, packed file, .onnx, .xml or .pt2. `InputError` for anything else."""
    path = Path(path)
    check_readable(path)
    if packed.is_packed(path):
        return _of_packed(path)
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise InputError(f"{path} is no file of ours: those are packed, or end in {', '.join(_READERS)}")
    return reader(path)


def _of_packed(path: Path) -> Listing:
    found = packed.contents(path)
    checkpoint.Header.from_fields(found.header, path)
    sizes = packed.coded_bytes(found)
    lines = (
        Line(name=entry.name, shape=entry.shape, count=entry.count, num_bytes=sizes[entry.name])
        for entry in found.entries
    )
    return Listing(kind="packed", lines=tuple(lines), num_bytes=path.stat().st_size)


def _of_checkpoint(path: Path) -> Listing:
    from safetensors import safe_open

    checkpoint.read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    lines = (_line(name, tensor.shape, tensor.nbytes) for name, tensor in tensors.items())
    return Listing(kind="checkpoint", lines=tuple(lines), num_bytes=path.stat().st_size)


def _line(name: str, shape: Iterable[int], num_bytes: int) -> Line:
    shape = tuple(shape)
    return Line(name=name, shape=shape, count=prod(shape), num_bytes=num_bytes)


def _check_about(text: str | None, path: Path) -> None:
    """Nets of others are listed, too; what tells of classes must be sound, and not newer than this project."""
    if text:
        Metadata.from_text(text, path, task=None)


def _of_onnx(path: Path) -> Listing:
    with needed("reading an ONNX file"):
        import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise InputError(f"{path} cannot be read as an ONNX file ({error})") from error
    _check_about({entry.key: entry.value for entry in model.metadata_props}.get(KEY), path)
    arrays = ((tensor.name, onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    lines = (_line(name, array.shape, array.nbytes) for name, array in arrays)
    return Listing(kind="ONNX", lines=tuple(lines), num_bytes=path.stat().st_size)


def _of_openvino(path: Path) -> Listing:
    with needed("reading an OpenVINO file"):
        import openvino

    weights = path.with_suffix(".bin")
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as an OpenVINO file ({error})") from error
    _check_about(openvino_file.said_by(model), path)
    constants = [operation for operation in model.get_ordered_ops() if operation.get_type_name() == "Constant"]
    lines = (_line(item.get_friendly_name(), item.get_output_shape(0), item.get_byte_size()) for item in constants)
    total = path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)
    return Listing(kind="OpenVINO", lines=tuple(lines), num_bytes=total)


def _of_pt2(path: Path) -> Listing:
    try:
        with zipfile.ZipFile(path) as archive:
            said = pt2_file.said_by(archive)
            configs = [name for name in archive.namelist() if name.endswith("_config.json")]
            entries = {name: json.loads(archive.read(name))["config"] for name in configs}
            lines = tuple(
                _of_payload(archive, config, name, entry)
                for config, found in entries.items()
                for name, entry in found.items()
            )
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as a pt2 file ({error})") from error
    _check_about(said, path)
    return Listing(kind="pt2", lines=lines, num_bytes=path.stat().st_size)


def _of_payload(archive: zipfile.ZipFile, config: str, name: str, entry: dict) -> Line:
    sizes = entry["tensor_meta"]["sizes"]
    stored = archive.getinfo(f"{config.rpartition('/')[0]}/{entry['path_name']}")
    return _line(name, (size["as_int"] for size in sizes), stored.file_size)


_READERS = {".safetensors": _of_checkpoint, ".onnx": _of_onnx, ".xml": _of_openvino, ".pt2": _of_pt2}
