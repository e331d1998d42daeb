"""What every exported file says of itself: one JSON text under the key "featherweight" of the file's own metadata."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from solution.checkpoint import Header
from solution.contracts import CLASSIFICATION, InputError, InputSpec

KEY = "featherweight"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Metadata(InputSpec):
    """What is said of an exported net besides how to feed it.

    precision   fp32, fp16 or int8
    task        classification or detection
    """

    precision: str = "fp32"
    task: str = CLASSIFICATION

    @property
    def num_outputs(self) -> int:
        """Numbers answered for each image, or for each of its boxes."""
        return len(self.classes) + (0 if self.task == CLASSIFICATION else 4)

    @classmethod
    def of(cls, header: Header, precision: str) -> Metadata:
        """What the export of a checkpoint says."""
        shared = {item.name: getattr(header, item.name) for item in dataclasses.fields(InputSpec)}
        return cls(**shared, precision=precision, task=header.task)

    def to_text(self) -> str:
        """The JSON text."""
        return json.dumps({"version": _VERSION, **dataclasses.asdict(self)})

    @classmethod
    def from_text(cls, text: str | None, path: Path, task: str | None = CLASSIFICATION) -> Metadata:
        """The same again. `InputError` when the file at `path` says nothing, or another task; None takes any task."""
        if not text:
            raise InputError(f"{path} does not name its classes and normalization: it was not exported by this project")
        try:
            fields = json.loads(text)
            version = int(fields.pop("version"))
            # Read first: a newer version may have other fields.
            if version > _VERSION:
                raise InputError(f"its description has version {version}, newer than {_VERSION}: update the project")
            found = fields["task"]
            values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            metadata = cls(**values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} has a broken description ({error!r}); export it again") from error
        if task is not None and found != task:
            raise InputError(f"{path} is a file for {found}, not for {task}")
        return metadata
