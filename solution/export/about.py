"""What every exported file says of itself: one JSON text under the key "featherweight" of the file's own metadata."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from solution.checkpoint import Header
from solution.contracts import CLASSIFICATION, InputError, task_of

KEY = "featherweight"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class About:
    """How to feed a file, and what its answers mean.

    classes     names, in the order of the outputs
    mean, std   per channel, of images scaled to [0, 1]: the input is (image / 255 - mean) / std
    size        side of the square input in pixels
    data        name of the data set that it was trained on
    precision   fp32, fp16 or int8
    task        classification or detection
    """

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    data: str = ""
    precision: str = "fp32"
    task: str = CLASSIFICATION

    @classmethod
    def of(cls, header: Header, precision: str) -> About:
        """What the export of a checkpoint says."""
        names = {item.name for item in dataclasses.fields(cls)} - {"precision", "task"}
        shared = {name: getattr(header, name) for name in names}
        return cls(**shared, precision=precision, task=task_of(header.origin.settings))

    def to_text(self) -> str:
        """The JSON text."""
        return json.dumps({"version": _VERSION, **dataclasses.asdict(self)})

    @classmethod
    def from_text(cls, text: str | None, path: Path, task: str | None = CLASSIFICATION) -> About:
        """The same again. `InputError` when the file at `path` says nothing, or another task; None takes any task."""
        if not text:
            raise InputError(f"{path} does not name its classes and normalisation: it was not exported by this project")
        try:
            fields = json.loads(text)
            version = int(fields.pop("version"))
            # Read first: a newer version may have other fields.
            if version > _VERSION:
                raise InputError(f"{path} has format version {version}, newer than {_VERSION}: update")
            found = fields["task"]
            values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            about = cls(**values)
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} has a broken description ({error!r}); export it again") from error
        if task is not None and found != task:
            raise InputError(f"{path} is a file for {found}, not for {task}")
        return about
