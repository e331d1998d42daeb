"""Any file of ours: checkpoints, packed or not, and exported nets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from solution import checkpoint
from solution.compress.parametrized import materialized
from solution.contracts import CLASSIFICATION, InputError
from solution.export import onnx_file, openvino_file, packed, pt2_file
from solution.export.exported import Exported
from solution.export.metadata import Metadata
from solution.runtime import check_readable

OPENERS = {file.SUFFIX: file.open_file for file in (onnx_file, openvino_file, pt2_file)}


def load(path: Path, into: nn.Module | None = None) -> tuple[nn.Module, checkpoint.Header]:
    """The net of a checkpoint or packed file, in evaluation mode, and its header; `into` as in `checkpoint.load`."""
    _refuse_exported(path)
    return packed.load(path, into) if packed.is_packed(path) else checkpoint.load(path, into)


def read_header(path: Path) -> checkpoint.Header:
    """The header of a checkpoint or of a packed file."""
    _refuse_exported(path)
    return packed.read_header(path) if packed.is_packed(path) else checkpoint.read_header(path)


def save(path: Path, model: nn.Module, header: checkpoint.Header) -> None:
    """Write a packed file when the name ends in .packed, else a checkpoint."""
    (packed if Path(path).suffix == packed.SUFFIX else checkpoint).save(path, model, header)


def _refuse_exported(path: Path) -> None:
    if Path(path).suffix in OPENERS:
        raise InputError(f"{path} is an exported net, which can be run but not changed: give the checkpoint it is of")


def open_file(path: Path, threads: int = 1, task: str | None = CLASSIFICATION) -> Exported:
    """Any file of ours, ready to run in its runtime; checkpoints run in PyTorch.

    `InputError` for a file for another task, unless `task` is None.
    """
    path = Path(path)
    check_readable(path)
    if path.suffix in OPENERS:
        return OPENERS[path.suffix](path, threads, task)
    exported = _eager(path, threads)
    if task not in (None, exported.metadata.task):
        raise InputError(f"{path} is a net for {exported.metadata.task}, not for {task}")
    return exported


def open_compiled(path: Path, threads: int = 1) -> Exported:
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


def _eager(path: Path, threads: int, wrap: Callable[[nn.Module], Callable] | None = None) -> Exported:
    net, header = load(path)
    net = materialized(net).requires_grad_(False)  # codes and codebooks would be made into weights at each call
    called = wrap(net) if wrap else net

    def run(images: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return called(torch.from_numpy(images)).numpy()

    runtime = "compile" if wrap else "eager"
    return Exported(path=path, runtime=runtime, metadata=Metadata.of(header, "fp32"), run=run, files=(path,))
