"""One scene: an object in some pose, on a background, among clutter, in some light; and the folder of such pictures."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from solution.contracts import InputError
from solution.data.rendered.objects import DRAWINGS, draw
from solution.data.rendered.sheet import SIDE as SHEET_SIDE, Sheet, bumps, oval, tint
from solution.temporaries import folder_beside

SIDE = 96
_NAMES = tuple(DRAWINGS)


def draw_scene(name: str, rng: Generator) -> np.ndarray:
    """A BGR image (SIDE, SIDE, 3) uint8 whose largest object is of class `name`."""
    scene = _background(rng)
    for _ in range(rng.integers(0, 3)):
        _paste(scene, _clutter(name, rng), _pose(rng, size=rng.uniform(0.25, 0.45), spread=0.45), rng)
    _paste(scene, draw(name, rng), _pose(rng, size=rng.uniform(0.8, 1.05), spread=0.06), rng)
    if rng.random() < 0.4:
        _paste(scene, _clutter(name, rng), _pose(rng, size=rng.uniform(0.2, 0.4), spread=0.4), rng)
    return _photograph(scene, rng)


def _clutter(name: str, rng: Generator) -> Sheet:
    """A torn-off part of an object of another class, or a scrap of no class."""
    if rng.random() < 0.5:
        other = _NAMES[(_NAMES.index(name) + rng.integers(1, len(_NAMES))) % len(_NAMES)]
        sheet = draw(other, rng)
        sheet.pixels[: round(SHEET_SIDE * rng.uniform(0.3, 0.6))] = 0
        return sheet
    sheet, color = Sheet(), tint(rng, saturation=(0.0, 0.9))
    if rng.random() < 0.5:
        points = oval((0, 0), tuple(rng.uniform(0.2, 0.9, size=2)))
        sheet.fill(points * rng.uniform(0.7, 1.1, size=(len(points), 1)), color)
    else:
        sheet.line(rng.uniform(-0.9, 0.9, size=(3, 2)), color, rng.uniform(0.05, 0.2))
    return sheet


def _pose(rng: Generator, size: float, spread: float) -> np.ndarray:
    """A perspective map (3, 3) from the sheet to the scene: turned, stretched, mirrored, tilted and moved.

    size    the object's larger side as a part of the scene's
    spread  the largest distance of its middle from the scene's, as a part of the scene's side
    """
    angle = rng.normal(0, 0.3) if rng.random() < 0.9 else rng.uniform(-np.pi, np.pi)
    stretch = rng.uniform(0.75, 1.0, size=2) * (1, rng.choice([-1, 1]))
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * stretch[::-1]
    corners = corners @ turn.T + rng.uniform(-0.1, 0.1, size=(4, 2))
    target = (0.5 + rng.uniform(-spread, spread, size=2) + corners * size / 2) * SIDE
    source = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * SHEET_SIDE
    return cv2.getPerspectiveTransform(source.astype(np.float32), target.astype(np.float32))


def _paste(scene: np.ndarray, sheet: Sheet, pose: np.ndarray, rng: Generator) -> None:
    """Lay the object and its soft shadow over `scene`, in place."""
    layer = cv2.warpPerspective(sheet.pixels, pose, (SIDE, SIDE), flags=cv2.INTER_LINEAR).astype(np.float32)
    alpha = layer[..., 3:] / 255
    offset = np.array([(1, 0, rng.uniform(-5, 5)), (0, 1, rng.uniform(0, 6))], dtype=np.float32)
    shadow = cv2.blur(cv2.warpAffine(alpha, offset, (SIDE, SIDE)), (7, 7))[..., None]
    scene *= (1 - rng.uniform(0.2, 0.6) * shadow) * (1 - alpha)
    scene += layer[..., :3]


def _background(rng: Generator) -> np.ndarray:
    """A surface (SIDE, SIDE, 3) float32: bare, planks, tiles, gravel or a crowd of blotches."""
    base = tint(rng, saturation=(0.0, 0.2), value=(0.3, 0.85)).astype(np.float32)
    kind = rng.integers(5)
    pattern = (_bare, _planks, _tiles, _gravel, _blotches)[kind](rng)
    return np.clip(base * pattern, 0, 255).astype(np.float32)


def _bare(rng: Generator) -> np.ndarray:
    return 0.8 + 0.4 * bumps(rng, 3, SIDE)[..., None]


def _planks(rng: Generator) -> np.ndarray:
    wide = rng.integers(10, 32)
    across = np.arange(SIDE) + rng.integers(wide)
    boards = rng.uniform(0.85, 1.1, size=SIDE // wide + 3)[across // wide] * np.where(across % wide < 2, 0.7, 1.0)
    grain = cv2.resize(rng.uniform(0.85, 1.15, size=(SIDE, 4)), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    pattern = boards[:, None] * grain
    return (pattern if rng.random() < 0.5 else pattern.T)[..., None]


def _tiles(rng: Generator) -> np.ndarray:
    wide = rng.integers(14, 40)
    joint = (np.arange(SIDE) + rng.integers(wide)) % wide < 2
    return np.where(joint[:, None] | joint[None], rng.uniform(0.7, 1.2), 0.9 + 0.2 * bumps(rng, 6, SIDE))[..., None]


def _gravel(rng: Generator) -> np.ndarray:
    return (0.8 + 0.4 * bumps(rng, int(rng.integers(20, 60)), SIDE))[..., None]


def _blotches(rng: Generator) -> np.ndarray:
    cells = rng.integers(4, 12)
    mosaic = (rng.uniform(0.7, 1.2, size=(cells, cells, 1)) * rng.uniform(0.85, 1.1, size=(cells, cells, 3))).astype(
        np.float32
    )
    return cv2.resize(mosaic, (SIDE, SIDE), interpolation=rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC]))


def _photograph(scene: np.ndarray, rng: Generator) -> np.ndarray:
    """Uneven and colored light, gamma, blur and noise: (SIDE, SIDE, 3) uint8."""
    scene = scene * _light(rng) * rng.uniform(0.9, 1.1, size=3).astype(np.float32)
    scene = 255 * np.clip(scene / 255, 0, 1) ** np.float32(np.exp(rng.uniform(-0.4, 0.3)))
    if rng.random() < 0.5:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.4, 1.2))
    scene += rng.uniform(1, 8) * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.clip(scene, 0, 255).astype(np.uint8)


def _light(rng: Generator) -> np.ndarray:
    """Brightness (SIDE, SIDE, 1): a slope, often with a hard-edged shadow across."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.meshgrid(*2 * [np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)])
    along = np.cos(angle) * x + np.sin(angle) * y
    light = 1 + rng.uniform(0, 0.7) * along
    if rng.random() < 0.25:
        light = light * np.where(along > rng.uniform(-0.3, 0.5), rng.uniform(0.45, 0.8), 1.0)
    return (rng.uniform(0.75, 1.15) * light)[..., None].astype(np.float32)


TITLE = "rendered demo data"
VERSION = 1  # raised whenever a drawing changes, so that sets drawn before are drawn again
CLASS_SHARES = {
    "Bags": 10,
    "Bottles": 14,
    "Boxes": 13,
    "Cans": 12,
    "Cells": 8,
    "Cups": 10,
    "Newspapers": 11,
    "Shirts": 9,
    "Trays": 8,
}
_ABOUT = "rendered.json"
_OUR_FILE = re.compile(rf"rendered\.json|(train|val)(/({'|'.join(CLASS_SHARES)})(/\d{{4,}}\.jpg)?)?")


def ensure_rendered(folder: Path, *, seed: int = 0, num_train: int = 2000, num_val: int = 500) -> Path:
    """Draw the rendered demo data into `folder` as <split>/<Class>/NNNN.jpg unless it is there; returns `folder`.

    The same arguments give the same bytes (with the same OpenCV and NumPy, on the same kind of processor).
    A set that was drawn with other arguments is replaced.
    Raises `InputError` when `folder` holds anything that was not drawn here.
    """
    folder = Path(folder)
    wanted = _about(seed, num_train, num_val)
    if _read_about(folder) == wanted:
        return folder
    _refuse_foreign(folder)
    # Not on stdout, which may carry a JSON report.
    print(f"drawing {num_train + num_val:,} images of {TITLE} (no photos) into {folder}", file=sys.stderr, flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(folder) as scratch:
        _draw(scratch / "new", wanted)
        _swap(folder, scratch, wanted)
    return folder


def split_counts(total: int) -> dict[str, int]:
    """`total` images over the classes by `CLASS_SHARES`, at least one each; the largest remainders round up."""
    if total < len(CLASS_SHARES):
        raise InputError(f"{TITLE} needs at least {len(CLASS_SHARES)} images in a split, one a class; got {total}")
    spare = total - len(CLASS_SHARES)
    exact = {name: 1 + spare * share / sum(CLASS_SHARES.values()) for name, share in CLASS_SHARES.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _about(seed: int, num_train: int, num_val: int) -> dict[str, Any]:
    counts = {"train": split_counts(num_train), "val": split_counts(num_val)}
    return {"title": TITLE, "version": VERSION, "seed": seed, "counts": counts}


def _read_about(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / _ABOUT).read_text())
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("title") == TITLE else None


def _refuse_foreign(folder: Path) -> None:
    """Raise unless `folder` is missing, empty, or holds nothing but what this file writes."""
    if folder.is_dir():
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        strangers = [name for name in names if not _OUR_FILE.fullmatch(name)]
        if not strangers and (not names or _read_about(folder)):
            return
        stranger = (strangers or names)[0]
    elif folder.exists():
        stranger = "a file of that name"
    else:
        return
    raise InputError(f"{folder} holds {stranger}, which is not {TITLE}; name another folder or move that away")


def _draw(folder: Path, about: dict[str, Any]) -> None:
    for split_number, (split, counts) in enumerate(about["counts"].items()):
        for class_number, (name, count) in enumerate(counts.items()):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([about["seed"], split_number, class_number, number])
                settings = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 93))]
                _, file_bytes = cv2.imencode(".jpg", draw_scene(name, rng), settings)
                (place / f"{number:04d}.jpg").write_bytes(file_bytes.tobytes())
    (folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n")


def _swap(folder: Path, scratch: Path, wanted: dict[str, Any]) -> None:
    """Put the new set in the place of `folder`. Another process that was faster with the same set wins."""
    with contextlib.suppress(FileNotFoundError):
        if _read_about(folder) != wanted:
            folder.rename(scratch / "old")
    try:
        (scratch / "new").rename(folder)
    except OSError:
        if _read_about(folder) != wanted:
            raise
