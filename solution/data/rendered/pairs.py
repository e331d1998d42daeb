"""Rendered pairs of picture and mask: a disk, a square and a triangle before a rough ground, on top of each other."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image

SHAPES = ("ground", "disk", "square", "triangle")
"""Classes, in the order of a mask's values."""
_PALETTE = (0, 0, 0, 220, 60, 60, 60, 180, 75, 70, 100, 220)


def draw_pair(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (size, size, 3) and its mask (size, size), both uint8. All classes have the same colors."""
    ground = cv2.resize(rng.uniform(40, 200, (6, 6, 3)).astype(np.float32), (size, size))
    mask = np.zeros((size, size), dtype=np.uint8)
    for shape in rng.permutation([1, 2, 3])[: rng.integers(1, 4)]:
        place = np.zeros_like(mask)
        center, reach = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.12, 0.3) * size
        if shape == 1:
            cv2.circle(place, center.astype(int).tolist(), int(reach), 1, -1)
        else:
            corners, turn = (4, 3)[shape - 2], rng.uniform(0, 2 * np.pi)
            angles = turn + 2 * np.pi * np.arange(corners) / corners
            points = center + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
            cv2.fillPoly(place, [points.round().astype(np.int32)], 1)
        mask[place > 0] = shape
        ground[place > 0] = rng.uniform(20, 235, 3)
    noisy = ground + rng.normal(0, 12, ground.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask


def write_pairs(folder: Path, counts: dict[str, int], *, size: int = 48, seed: int = 0) -> Path:
    """A folder of pairs, {split: how many}: images/, masks/ as palette PNG, classes.txt. Returns `folder`."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture, mask = draw_pair(rng, size)
            Image.fromarray(picture).save(folder / split / "images" / f"{number:04d}.png")
            indexed = Image.fromarray(mask, "P")
            indexed.putpalette(_PALETTE)
            indexed.save(folder / split / "masks" / f"{number:04d}.png")
    (folder / "classes.txt").write_text("\n".join(SHAPES) + "\n", encoding="utf-8")
    return folder
