"""The folder of JPEG files, made once and never half."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from solution.contracts import InputError

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
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        _draw(Path(scratch) / "new", wanted)
        _swap(folder, Path(scratch), wanted)
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
    import cv2
    import numpy as np

    from solution.data.rendered.scene import draw_scene

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
