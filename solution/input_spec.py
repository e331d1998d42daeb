"""How a net is fed: what every file of a net holds of its pictures and its outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from solution.text import InputError, printable

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per channel, of values from 0 to 1: what most nets with published weights expect."""
INTERPOLATIONS = ("area", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""How a picture is resized: by area where it shrinks and linearly where it grows, or by one of Pillow's filters."""
_MOST_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """How to feed a net, and what its outputs mean: what every file of a net holds.

    classes        names, in the order of the outputs; none when nobody named them
    mean, std      per channel, of images scaled to [0, 1]: the input is (image / 255 - mean) / std. One number each
                   is of a net of gray pictures
    size           side of the square input in pixels; 0, with no mean and no std, when the input is not known
    crop           0: the whole picture is stretched to the square. Else its shorter side becomes size / crop pixels,
                   and the square in the middle is cut out
    interpolation  one of `INTERPOLATIONS`
    data           name of the data set that it was trained on
    """

    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int = 0
    crop: float = 0.0
    interpolation: str = "area"
    data: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise InputError(f"classes must be names, got {str(self.classes)[:80]}")
        object.__setattr__(self, "classes", tuple(map(printable, self.classes)))
        if not isinstance(self.size, int) or not 0 <= self.size <= _MOST_SIDE:
            raise InputError(f"size must be the side of the input in pixels, 1 to {_MOST_SIDE}, got {self.size!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}")
        if not isinstance(self.crop, int | float) or not 0 <= self.crop <= 1:
            raise InputError(f"crop must be 0 or a share of the shorter side up to 1, got {self.crop!r}")
        if not self.size and not self.mean and not self.std:
            return
        if not all(isinstance(row, tuple | list) for row in (self.mean, self.std)) or not all(
            isinstance(value, int | float) for value in (*self.mean, *self.std)
        ):
            raise InputError(f"mean and std must be a number of each channel, got {self.mean!r} and {self.std!r}")
        if len(self.mean) != len(self.std):
            raise InputError(
                f"mean has {len(self.mean)} number(s) and std {len(self.std)}: both take one of each channel, three "
                "for color, such as --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5, and one for gray pictures"
            )
        numbers = (*self.mean, *self.std)
        if not 0 < len(self.mean) == len(self.std) or not all(map(math.isfinite, numbers)) or min(self.std) <= 0:
            raise InputError(f"mean and std must be a number of each channel, got {self.mean} and {self.std}")
