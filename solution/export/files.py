"""Any file of ours: checkpoints, packed or not, and exported nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from solution import checkpoint
from solution.contracts import InputError
from solution.evaluate.classify import predictor
from solution.export import onnx_file, openvino_file, packed, pt2_file
from solution.export.about import About
from solution.export.exported import Exported

OPENERS = {file.SUFFIX: file.open_file for file in (onnx_file, openvino_file, pt2_file)}


def load(path: Path) -> tuple[nn.Module, checkpoint.Header]:
    """The net of a checkpoint or of a packed file, in evaluation mode, and its header."""
    _refuse_exported(path)
    return packed.load(path) if packed.is_packed(path) else checkpoint.load(path)


def read_header(path: Path) -> checkpoint.Header:
    """The header of a checkpoint or of a packed file."""
    _refuse_exported(path)
    return packed.read_header(path) if packed.is_packed(path) else checkpoint.read_header(path)


def _refuse_exported(path: Path) -> None:
    if Path(path).suffix in OPENERS:
        raise InputError(f"{path} is an exported net, which can be run but not changed: give the checkpoint it is of")


def open_file(path: Path, threads: int = 1) -> Exported:
    """Any file of ours, ready to run in its runtime; checkpoints run in PyTorch."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    return OPENERS[path.suffix](path, threads) if path.suffix in OPENERS else _eager(path, threads)


def _eager(path: Path, threads: int) -> Exported:
    net, header = load(path)
    predict = predictor(net)

    def run(images: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return predict(torch.from_numpy(images)).numpy()

    return Exported(path=path, runtime="pytorch", about=About.of(header, "fp32"), run=run, files=(path,))
