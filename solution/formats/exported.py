"""An exported file: its description, and the net inside, opened in its runtime and callable on a batch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solution.contracts import CLASSIFICATION, InputError
from solution.input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from solution.tasks import task_named

KEY = "featherweight"
"""Where the JSON text lies among the file's own metadata."""
VERSION = 3
"""2: there was neither `crop` nor `interpolation`. 1: there was no `outputs`."""

Run = Callable[[np.ndarray], np.ndarray]
"""Normalized float32 images (B, 3, size, size) to logits (B, num_classes), or a detector's candidates (B, 4 + C, N)."""


@dataclass(frozen=True, kw_only=True)
class Metadata(InputSpec):
    """The description in an exported file: how to feed it, and what it is.

    outputs     classes that it scores, which may have no names; 0: as many as there are names
    precision   fp32, fp16 or int8
    task        classification or detection
    """

    outputs: int = 0
    precision: str = "fp32"
    task: str = CLASSIFICATION

    @property
    def num_outputs(self) -> int:
        """Numbers for each image, or for each of its boxes."""
        return task_named(self.task).num_outputs(self.outputs or len(self.classes))

    @property
    def labels(self) -> tuple[str, ...]:
        """A word for each class: its name, or its number where the file names none."""
        return self.classes or tuple(f"class {index}" for index in range(self.outputs))

    @classmethod
    def of(cls, spec: InputSpec, *, outputs: int, precision: str, task: str) -> Metadata:
        """The description of the export of a net that is fed as `spec` describes."""
        shared: dict[str, Any] = {item.name: getattr(spec, item.name) for item in dataclasses.fields(InputSpec)}
        return cls(**shared, outputs=outputs, precision=precision, task=task)

    @classmethod
    def of_file(
        cls, text: str | None, path: Path, task: str | None, feed: Mapping[str, Any], ports: Sequence[Sequence[tuple]]
    ) -> Metadata:
        """The description in the file at `path`, with the fields of `feed` in it; of a file of others what is known.

        ports  shapes of the inputs and of the outputs, whole numbers where they are fixed
        """
        if not text:
            return cls.guessed(ports, feed, path)
        metadata = dataclasses.replace(cls.from_text(text, path, task), **feed)
        metadata.check_signature(path, *ports)
        return metadata

    @classmethod
    def guessed(cls, ports: Sequence[Sequence[tuple]], feed: Mapping[str, Any], path: Path) -> Metadata:
        """The description of a classifier of others, whose file holds none, by what it maps (B, C, S, S) to.

        What `feed` leaves open is ImageNet's mean and std. `InputError` for a file that is no classifier of images.
        """
        if not (len(ports[0]) == 1 <= len(ports[1])):
            raise InputError(
                f"{path} has {len(ports[0])} inputs and {len(ports[1])} outputs: only nets of one batch run"
            )
        shape, outputs = ports[0][0], ports[1][0]
        whole = [size if isinstance(size, int) else None for size in (*shape[1:], *outputs[1:])]
        if len(shape) != 4 or len(outputs) != 2 or whole[0] not in (None, 1, 3) or whole[1] != whole[2]:
            raise InputError(
                f"{path} maps {list(shape)} to {list(outputs)}: only classifiers of square images, (B, 3, S, S) to "
                "(B, classes), run here"
            )
        if whole[1] is None and "size" not in feed:
            raise InputError(f"{path} takes pictures of any side: name the one that it was trained with, --size PIXELS")
        channels, classes = whole[0] or 3, feed.get("classes", ())
        known = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
        given = {"mean": known[0], "std": known[1], "size": whole[1], **feed}
        if whole[1] not in (None, given["size"]):
            raise InputError(f"{path} takes pictures of {whole[1]} px alone, and --size names {given['size']}")
        return cls(**given, outputs=whole[3] or len(classes))

    def to_text(self) -> str:
        """The JSON text."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)})

    @classmethod
    def from_text(cls, text: str | None, path: Path, task: str | None = CLASSIFICATION) -> Metadata:
        """The same again. `InputError` when the file at `path` has none, or another task; None takes any task."""
        if not text:
            raise InputError(f"{path} does not name its classes and normalization: it was not exported by this project")
        try:
            fields = json.loads(text)
            version = int(fields.pop("version"))
            # Read first: a newer version may have other fields.
            if version > VERSION:
                raise InputError(f"its description has version {version}, newer than {VERSION}: update the project")
            found = fields["task"]
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
            }
            metadata = cls(**values)
            if metadata.classes and metadata.outputs not in (0, len(metadata.classes)):
                raise InputError(f"it names {len(metadata.classes)} classes, and its net has {metadata.outputs}")
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} has a broken description ({error!r}); export it again") from error
        if task is not None and found != task:
            raise InputError(f"{path} is a file for {found}, not for {task}")
        return metadata

    def check_signature(self, path: Path, inputs: Sequence[tuple], outputs: Sequence[tuple]) -> None:
        """`InputError` unless the file at `path` maps the images to the outputs of its description.

        Shapes hold whole numbers, and anything else where they vary.
        """
        task = task_named(self.task)
        if not (len(inputs) == len(outputs) == 1 and (len(inputs[0]), len(outputs[0])) == (4, task.rank)):
            raise InputError(
                f"{path} maps {len(inputs)} input(s) {inputs} to {len(outputs)} output(s) {outputs}, but a net for "
                f"{task.name} maps images (B, 3, H, W) to {task.answers}: it is a file for another task"
            )
        wanted = (len(self.mean), self.size, self.size, self.num_outputs)
        found = (*inputs[0][1:], outputs[0][1])
        if any(isinstance(size, int) and size != given for size, given in zip(found, wanted, strict=True)):
            raise InputError(
                f"{path} declares that it takes images (B, {len(self.mean)}, {self.size}, {self.size}) and gives "
                f"{self.num_outputs} numbers each, but its net maps {inputs[0]} to {outputs[0]}: export it again"
            )


def in_parts(run: Run, at_once: Any) -> Run:
    """`run` for any number of images, where the file takes `at_once`: the last part is filled up with its last image.

    What is no whole number takes any.
    """

    def whole(images: np.ndarray) -> np.ndarray:
        if not isinstance(at_once, int) or len(images) == at_once:
            return run(images)
        full = np.concatenate([images, np.repeat(images[-1:], -len(images) % at_once, axis=0)])
        parts = [run(full[start : start + at_once]) for start in range(0, len(full), at_once)]
        return np.concatenate(parts)[: len(images)]

    return whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """An opened file: ``logits = exported(images)``, so that the same evaluation judges it.

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
        metadata = self.metadata
        if images.dim() != 4 or tuple(images.shape[1:]) != (len(metadata.mean), metadata.size, metadata.size):
            raise InputError(
                f"{self.path} takes images (B, {len(metadata.mean)}, {metadata.size}, {metadata.size}), got "
                f"{tuple(images.shape)}"
            )
        logits = self.run(np.ascontiguousarray(self.normalized(images).cpu().numpy()))
        if logits.ndim != task_named(metadata.task).rank or logits.shape[:2] != (len(images), metadata.num_outputs):
            raise InputError(
                f"{self.path} gives {logits.shape} for {len(images)} images, where {metadata.num_outputs} numbers each "
                "were expected: it is a file for another task"
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
