"""Any file of ours: checkpoints, packed or not, and exported nets; loaded, opened in their runtimes, or listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import nn

from solution import checkpoint
from solution.compress.parametrized import materialized
from solution.contracts import CLASSIFICATION, InputError
from solution.export.packed import packed
from solution.export.packed.container import contents
from solution.formats.base import Format, Line, Listing
from solution.formats.exported import Exported, Metadata
from solution.registry import FORMATS
from solution.runtime import check_readable

_CHECKPOINT = ".safetensors"


class NetSource(Protocol):
    """What names a net besides a file of ours: see `solution.opening.ModelSource`.

    own      the file that it is, exported or of ours, if it is one
    weights  its file of weights, if it has one
    feed     fields of `InputSpec` that override the file's own
    place    where what is made of it goes by default, without an ending
    """

    @property
    def own(self) -> Path | None: ...
    @property
    def weights(self) -> Path | None: ...
    @property
    def feed(self) -> Mapping[str, Any]: ...
    @property
    def place(self) -> Path: ...

    def load(self) -> tuple[nn.Module, checkpoint.Header]:
        """The net and its header."""


Model: TypeAlias = Path | NetSource


def file_of(model: Model) -> Path | None:
    """The file that MODEL is, exported or of ours; None when it is a net of elsewhere."""
    return model if isinstance(model, Path) else model.own


def format_of(model: Model) -> Format | None:
    """The format of an exported file, by the end of its name; None for a checkpoint, packed or not, and other nets."""
    path = file_of(model)
    return None if path is None else next((one for one in FORMATS.values() if one.suffix == path.suffix), None)


def load(path: Model, into: nn.Module | None = None) -> tuple[nn.Module, checkpoint.Header]:
    """The net of a checkpoint or packed file, in evaluation mode, and its header; `into` as in `checkpoint.load`."""
    _refuse_exported(path)
    if not isinstance(path, Path):
        return path.load()
    return packed.load(path, into) if packed.is_packed(path) else checkpoint.load(path, into)


def read_header(path: Path) -> checkpoint.Header:
    """The header of a checkpoint or of a packed file."""
    _refuse_exported(path)
    return packed.read_header(path) if packed.is_packed(path) else checkpoint.read_header(path)


def save(path: Path, model: nn.Module, header: checkpoint.Header) -> None:
    """Write a packed file when the name ends in .packed, else a checkpoint."""
    (packed if Path(path).suffix == packed.SUFFIX else checkpoint).save(path, model, header)


def _refuse_exported(path: Model) -> None:
    if format_of(path) is not None:
        raise InputError(f"{path} is an exported net, which can be run but not changed: give the checkpoint it is of")


def open_file(path: Model, threads: int = 1, task: str | None = CLASSIFICATION, *, checked: bool = False) -> Exported:
    """Any file of ours, ready to run in its runtime; checkpoints and nets of elsewhere run in PyTorch.

    checked  this process wrote the file, or another has checked it, so that it is not checked again

    `InputError` for a file for another task, unless `task` is None.
    """
    file = file_of(path)
    if file is not None:
        check_readable(file)
    if file is not None and (format := format_of(file)) is not None:
        feed = {} if isinstance(path, Path) else path.feed
        if not checked:
            format.check(file)
        return format.open(file, threads, task, **({"feed": feed} if feed else {}))
    exported = _eager(path, threads)
    if task not in (None, exported.metadata.task):
        raise InputError(f"{path} is a net for {exported.metadata.task}, not for {task}")
    return exported


def open_compiled(path: Model, threads: int = 1) -> Exported:
    """A checkpoint behind ``torch.compile``, already compiled for one image. `InputError` when that fails here."""
    exported = _eager(path, threads, torch.compile)
    metadata = exported.metadata
    try:
        exported.run(np.zeros((1, len(metadata.mean), metadata.size, metadata.size), dtype=np.float32))
    except Exception as error:  # whatever the compiler, or its absence, makes of the net
        raise InputError(
            f"{path} cannot be compiled ({str(error).splitlines()[0]}): torch.compile needs a C++ compiler; "
            "run it in eager"
        ) from error
    return exported


def _eager(path: Model, threads: int, wrap: Callable[[nn.Module], Callable] | None = None) -> Exported:
    net, header = load(path)
    net = materialized(net).requires_grad_(False)  # codes and codebooks would be made into weights at each call
    called = wrap(net) if wrap else net

    def run(images: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return called(torch.from_numpy(images)).numpy()

    outputs = header.outputs or 0
    if not outputs and header.size:
        with torch.inference_mode():
            outputs = net(torch.zeros(1, len(header.mean), header.size, header.size)).shape[1]
    metadata = Metadata.of(header, precision="fp32", task=header.task, outputs=outputs)
    file = file_of(path)
    own = file or path.weights  # type: ignore[union-attr]
    return Exported(path=file or Path(str(path)), runtime="compile" if wrap else "eager", metadata=metadata, run=run,
                    files=(own,) if own else ())  # fmt: skip


def listing(model: Model) -> Listing:
    """What lies in any file of ours or of weights, or in a net, layer by layer. `InputError` for files of others."""
    path = file_of(model)
    if path is None:
        state = load(model)[0].state_dict()
        lines = tuple(Line.of(name, tensor.shape, tensor.nbytes) for name, tensor in state.items())
        return Listing(kind=f"the net {model}", lines=lines, num_bytes=sum(tensor.nbytes for tensor in state.values()))
    check_readable(path)
    if packed.is_packed(path):
        found = contents(path)
        checkpoint.Header.from_fields(found.header, path)
        sizes = packed.coded_bytes(found)
        lines = tuple(Line.of(entry.name, entry.shape, sizes[entry.name]) for entry in found.entries)
        return Listing(kind="packed", lines=lines, num_bytes=path.stat().st_size)
    if (format := format_of(path)) is not None:
        return format.listing(path)
    if path.suffix != _CHECKPOINT:
        known = ", ".join((_CHECKPOINT, *(format.suffix for format in FORMATS.values())))
        raise InputError(f"{path} is no file of ours: those are packed, or end in {known}")
    checkpoint.read_header(path)
    lines = tuple(Line.of(name, tensor.shape, tensor.nbytes) for name, tensor in checkpoint.read_weights(path).items())
    return Listing(kind="checkpoint", lines=lines, num_bytes=path.stat().st_size)
