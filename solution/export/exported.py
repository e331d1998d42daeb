"""A net in the file and the runtime where it will live: callable on a batch, so that the same evaluation judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solution.contracts import CLASSIFICATION, DETECTION, InputError
from solution.export.metadata import Metadata

Run = Callable[[np.ndarray], np.ndarray]
"""Normalized float32 images (B, 3, size, size) to logits (B, num_classes), or a detector's candidates (B, 4 + C, N)."""


_RANKS = {CLASSIFICATION: 2, DETECTION: 3}
"""What a file is for -> dimensions of its answers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """An opened file: ``logits = exported(images)``.

    path      the file
    runtime   what runs it: eager or compile (both PyTorch), onnxruntime, openvino
    files     all files that belong to it
    """

    path: Path
    runtime: str
    metadata: Metadata
    run: Run
    files: tuple[Path, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), uint8 as they are or float32 already normalized, to logits (B, num_classes) float32.

        Of a detector to candidates (B, 4 + num_classes, N): see `solution.models.yolo`.
        """
        size = self.metadata.size
        if images.dim() != 4 or tuple(images.shape[1:]) != (len(self.metadata.mean), size, size):
            raise InputError(f"{self.path} takes images (B, 3, {size}, {size}), got {tuple(images.shape)}")
        logits = self.run(np.ascontiguousarray(self.normalized(images).cpu().numpy()))
        if logits.ndim != _RANKS.get(self.metadata.task) or logits.shape[:2] != (
            len(images),
            self.metadata.num_outputs,
        ):
            raise InputError(
                f"{self.path} answers {logits.shape} to {len(images)} images, where {self.metadata.num_outputs} "
                f"{'classes' if self.metadata.task == CLASSIFICATION else 'numbers a box'} each were expected: it is a "
                "file for another task"
            )
        return torch.from_numpy(np.array(logits, dtype=np.float32))

    def normalized(self, images: Tensor) -> Tensor:
        """float32 images as the net wants them; those that are float are taken as they are."""
        if images.is_floating_point():
            return images.float()
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.metadata.mean, self.metadata.std))
        return (images.float() / 255 - mean) / std

    @property
    def num_bytes(self) -> int:
        """Bytes on disk of all its files."""
        return sum(file.stat().st_size for file in self.files)


def check_signature(path: Path, inputs: Sequence[tuple], outputs: Sequence[tuple], metadata: Metadata) -> None:
    """`InputError` unless a file maps the images to the answers that it says it does.

    Shapes hold whole numbers, and anything else where they vary.
    """
    if not (len(inputs) == len(outputs) == 1 and (len(inputs[0]), len(outputs[0])) == (4, _RANKS.get(metadata.task))):
        raise InputError(
            f"{path} maps {len(inputs)} input(s) {inputs} to {len(outputs)} output(s) {outputs}, but a classifier maps "
            "images (B, 3, H, W) to logits (B, classes), and a detector to candidates (B, 4 + classes, N): it is a "
            f"file for another task than {metadata.task}"
        )
    wanted = (len(metadata.mean), metadata.size, metadata.size, metadata.num_outputs)
    found = (*inputs[0][1:], outputs[0][1])
    if any(isinstance(size, int) and size != said for size, said in zip(found, wanted, strict=True)):
        raise InputError(
            f"{path} says that it takes images (B, {len(metadata.mean)}, {metadata.size}, {metadata.size}) and answers "
            f"with {metadata.num_outputs} numbers each, but its net maps {inputs[0]} to {outputs[0]}: export it again"
        )
