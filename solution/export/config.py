"""`ExportConfig`: what to export, from what, to where, with what limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solution.budget import Budget
from solution.contracts import InputError
from solution.export import files
from solution.export.packed import packed
from solution.export.web import page_files
from solution.formats.base import PRECISIONS, Format
from solution.registry import FORMATS
from solution.text import did_you_mean

PACKED, WEB = "packed", "web"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export.

    format              packed, web, or one of `solution.registry.FORMATS`
    file                a checkpoint or a packed file; None for a net in memory, which needs `out`
    precision           fp32, fp16, int8, int8_full or int8_dynamic; "" takes the first that the format has
    out                 where to; None names it after `file`
    data                the data set that proves it; None takes the demo's default for a file, none for a net in memory
    calibration_images  training images that int8 is calibrated on; None takes up to 256
    max_loss            macro F1 that may be lost on val; None takes the tolerance of the precision
    flash, ram          what a microcontroller has, such as "512 KiB": a file that needs more is not kept
    """

    format: str
    file: files.Model | None = None
    precision: str = ""
    out: Path | None = None
    data: str | None = None
    calibration_images: int | None = None
    max_loss: float | None = None
    flash: str | None = None
    ram: str | None = None

    def __post_init__(self) -> None:
        if self.format not in (PACKED, WEB, *FORMATS):
            known, hint = (PACKED, WEB, *FORMATS), did_you_mean(self.format, (PACKED, WEB, *FORMATS))
            raise InputError(f"format must be one of {', '.join(known)}, got {self.format!r}{hint}")
        if not self.precision:
            object.__setattr__(self, "precision", "fp32" if self.is_packed else self.target.precisions[0])
        if self.precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not self.is_packed:
            self.target.check_precision(self.precision)
        if self.calibration_images is not None and self.calibration_images < 1:
            raise InputError(f"calibration images must be at least 1, got {self.calibration_images}")
        if self.max_loss is not None and not 0 <= self.max_loss <= 1:
            raise InputError(f"max_loss is a fraction of 1, such as 0.01, got {self.max_loss}")
        for name in ("flash", "ram"):
            if getattr(self, name) is not None:
                Budget.of(getattr(self, name), "bytes", name)
                if self.is_packed or not self.target.on_chips:
                    raise InputError(f"{name} is what a microcontroller has: give it with --format micro")
        if self.format != WEB and self.path.suffix != self.suffix:
            raise InputError(f"a file of the {self.format} format ends in {self.suffix}, got {self.out}")

    @property
    def is_packed(self) -> bool:
        """Whether it is no runtime's format: a packed file is the checkpoint itself in fewer bytes."""
        return self.format == PACKED

    @property
    def target(self) -> Format:
        """The runtime's format: a page's net is an ONNX file."""
        return FORMATS["onnx" if self.format == WEB else self.format]

    @property
    def suffix(self) -> str:
        """How the file's name ends; that of a page's folder as it likes."""
        if self.format == WEB:
            return ".web"
        return packed.SUFFIX if self.is_packed else self.target.suffix

    @property
    def path(self) -> Path:
        """Where the file goes, or the folder of a page."""
        if self.out is not None:
            return self.out
        if self.file is None:
            raise InputError("a net in memory needs a place: out=PATH")
        precision = "" if self.precision == "fp32" else f".{self.precision}"
        path = self.file if isinstance(self.file, Path) else self.file.place
        return path.with_name(path.name.partition(".")[0] + precision + self.suffix)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are written."""
        if self.format == WEB:
            return page_files(self.path)
        return (self.path,) if self.is_packed else self.target.files(self.path)
