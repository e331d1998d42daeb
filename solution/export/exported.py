"""A net in the file and the runtime where it will live: callable on a batch, so that the same evaluation judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solution.contracts import CLASSIFICATION, DETECTION, InputError
from solution.export.about import About

Run = Callable[[np.ndarray], np.ndarray]
"""Normalised float32 images (B, 3, size, size) to logits (B, num_classes), or a detector's candidates (B, 4 + C, N)."""


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
    about: About
    run: Run
    files: tuple[Path, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), uint8 as they are or float32 already normalised, to logits (B, num_classes) float32.

        Of a detector to candidates (B, 4 + num_classes, N): see `solution.models.yolo`.
        """
        size = self.about.size
        if images.dim() != 4 or tuple(images.shape[1:]) != (len(self.about.mean), size, size):
            raise InputError(f"{self.path} takes images (B, 3, {size}, {size}), got {tuple(images.shape)}")
        logits = self.run(np.ascontiguousarray(self.normalised(images).cpu().numpy()))
        if logits.ndim != _RANKS.get(self.about.task) or logits.shape[:2] != (len(images), self.about.num_outputs):
            raise InputError(
                f"{self.path} answers {logits.shape} to {len(images)} images, where {self.about.num_outputs} "
                f"{'classes' if self.about.task == CLASSIFICATION else 'numbers a box'} each were expected: it is a "
                "file for another task"
            )
        return torch.from_numpy(np.array(logits, dtype=np.float32))

    def normalised(self, images: Tensor) -> Tensor:
        """float32 images as the net wants them; those that are float are taken as they are."""
        if images.is_floating_point():
            return images.float()
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.about.mean, self.about.std))
        return (images.float() / 255 - mean) / std

    @property
    def num_bytes(self) -> int:
        """Bytes on disk of all its files."""
        return sum(file.stat().st_size for file in self.files)


def check_signature(path: Path, inputs: Sequence[tuple], outputs: Sequence[tuple], about: About) -> None:
    """`InputError` unless a file maps the images to the answers that it says it does.

    Shapes hold whole numbers, and anything else where they vary.
    """
    if not (len(inputs) == len(outputs) == 1 and (len(inputs[0]), len(outputs[0])) == (4, _RANKS.get(about.task))):
        raise InputError(
            f"{path} maps {len(inputs)} input(s) {inputs} to {len(outputs)} output(s) {outputs}, but a classifier maps "
            "images (B, 3, H, W) to logits (B, classes), and a detector to candidates (B, 4 + classes, N): it is a "
            f"file for another task than {about.task}"
        )
    wanted = (len(about.mean), about.size, about.size, about.num_outputs)
    found = (*inputs[0][1:], outputs[0][1])
    if any(isinstance(size, int) and size != said for size, said in zip(found, wanted, strict=True)):
        raise InputError(
            f"{path} says that it takes images (B, {len(about.mean)}, {about.size}, {about.size}) and answers with "
            f"{about.num_outputs} numbers each, but its net maps {inputs[0]} to {outputs[0]}: export it again"
        )
