"""Random views of a picture: crop, flip, quarter turn, color, erasing; each a pure function of seed, epoch, index."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from solution.contracts import InputError

_HUE_SHARE = 0.1
_COLOR_CHANCE = 0.8
_ERASED_SIDE = (0.1, 0.35)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How training pictures are varied.

    crop_scale    share of the picture's area that a random crop keeps; (1, 1) keeps all of it
    crop_ratio    width : height of a crop
    flip          chance of a mirror image
    quarter_turn  chance of a turn by a random multiple of 90 degrees
    color        how far brightness, contrast and saturation move (hue a tenth of that); 0 leaves them
    erase         chance that a random rectangle is filled with noise
    """

    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 1.333)
    flip: float = 0.5
    quarter_turn: float = 0.3
    color: float = 0.3
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "quarter_turn", "color", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name} must lie between 0 and 1, got {getattr(self, name)}")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise InputError(f"augment.crop_scale must be (low, high) with 0 < low <= high <= 1, got {self.crop_scale}")
        narrow, wide = self.crop_ratio
        if not 0 < narrow <= wide:
            raise InputError(f"augment.crop_ratio must be (low, high) with 0 < low <= high, got {self.crop_ratio}")

    def pipeline(self, size: int) -> Any:
        """An `albumentations.Compose` that turns (H, W, 3) uint8 into (size, size, 3) uint8."""
        # Albumentations otherwise asks the network for a newer version whenever it is imported.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A

        whole = self.crop_scale == (1, 1)
        crop = A.RandomResizedCrop((size, size), scale=self.crop_scale, ratio=self.crop_ratio)
        steps = [A.Resize(size, size) if whole else crop]
        steps += [A.HorizontalFlip(p=self.flip)] if self.flip else []
        steps += [A.RandomRotate90(p=self.quarter_turn)] if self.quarter_turn else []
        if self.color:
            by = self.color
            steps.append(A.ColorJitter(by, by, by, hue=by * _HUE_SHARE, p=_COLOR_CHANCE))
        if self.erase:
            hole = {"hole_height_range": _ERASED_SIDE, "hole_width_range": _ERASED_SIDE}
            steps.append(A.CoarseDropout(num_holes_range=(1, 1), fill="random", p=self.erase, **hole))
        return A.Compose(steps)


class Viewer:
    """Views of pictures that depend on nothing but the picture, the seed, the epoch and the index.

    Albumentations seeds every transform alike, which ties the chance of a turn to that of a flip, and costs as much as
    the views themselves. Here all transforms share two generators, which are set anew for each view.
    """

    def __init__(self, augment: Augment, size: int, seed: int) -> None:
        self.augment, self.size, self.seed = augment, size, seed
        self._pipeline = augment.pipeline(size)
        self._chance = random.Random()
        self._numbers = np.random.PCG64()
        self._pipeline.set_random_state(np.random.Generator(self._numbers), self._chance)

    def __call__(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """(H, W, 3) uint8 -> (size, size, 3) uint8."""
        # The leading bit gives all keys one length: Python seeds index 2 of epochs 0 and 1 alike otherwise.
        self._chance.seed((1 << 128) | (self.seed << 64) | (epoch << 32) | index)
        position = {"state": self._chance.getrandbits(128), "inc": 1}
        self._numbers.state = {"bit_generator": "PCG64", "state": position, "has_uint32": 0, "uinteger": 0}
        return self._pipeline(image=image)["image"]
