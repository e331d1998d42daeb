"""One encoded picture -> RGB pixels; all pictures of a split -> one memory-mapped file, decoded once."""

from __future__ import annotations

import functools
import io
import json
import mmap
import shutil
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from PIL import ExifTags, Image

from solution.contracts import InputError
from solution.data.source import Item, Source, UnreadableImage, digest
from solution.locks import made_by_one
from solution.runtime import cache_folder, reserve, write_text, written_whole

MAX_PIXELS = 100_000_000
_SCAN, _MOST_SCANS = b"\xff\xda", 50
"""A JPEG that gets better as it loads is decoded once for each of its scans, of which encoders write a dozen."""
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftyphevc")
_UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""{orientation in EXIF: what turns the picture upright}."""
VERSION = 1
MAX_UNREADABLE = 0.01
_SHOWN = 5


def decode(data: bytes, name: str, at_least: int | None = None, most_pixels: int | None = None) -> np.ndarray:
    """The picture in `data` as (H, W, 3) uint8 RGB, upright, transparency laid over white.

    The kind of file is recognized by its content. With `at_least`, a large JPEG is decoded at a fraction of its size,
    but not below `at_least` pixels a side. Raises `UnreadableImage` with the reason for a
    file that is empty, cut short or no picture, and for one above `MAX_PIXELS`; nothing else, whatever the decoder did.
    `most_pixels` is a lower limit, of what is really decoded.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    if data[:2] == b"\xff\xd8" and (scans := data.count(_SCAN)) > _MOST_SCANS:
        raise UnreadableImage(name, f"a JPEG of {scans:,} scans, more than {_MOST_SCANS}: refused")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=_formats()) as image:
            return _pixels(image, name, at_least, most_pixels or MAX_PIXELS)
    except Image.UnidentifiedImageError:
        if data[4:12] in _HEIC:
            raise UnreadableImage(name, "a HEIC photo, which is not read here: convert it to JPEG") from None
        raise UnreadableImage(name, f"not an image by its content; {', '.join(_formats())} are read") from None
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(name, f"broken or cut short ({error})") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those kinds of files that the installed Pillow reads."""
    Image.init()
    return tuple(kind for kind in _FORMATS if kind in Image.OPEN)


def _pixels(image: Image.Image, name: str, at_least: int | None, most: int) -> np.ndarray:
    width, height = image.size
    if width * height <= MAX_PIXELS and at_least is not None and image.mode in ("L", "RGB"):
        image.draft(None, (at_least, at_least))
    in_scans = "progressive" in image.info  # the decoder keeps all pixels until the last scan
    if (width * height if in_scans else image.width * image.height) > most:
        raise UnreadableImage(name, f"{width} x {height} pixels are more than {most:,}: refused")
    image.load()
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None
    return np.asarray(_rgb(image if turn is None else image.transpose(turn)))  # (H, W, 3)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit gray picture's high bytes, and 255 times a float one's; Pillow's own conversion would clip at 255."""
    values = np.nan_to_num(np.asarray(image))  # (H, W)
    if image.mode == "F":
        values = values * (65535 if values.max() <= 1 else 257)
    return Image.fromarray((values.clip(0, 65535).astype(np.int64) >> 8).astype(np.uint8))


Shape = tuple[int, float, str]
"""Side in pixels, crop and interpolation of a picture as a net sees it."""


@dataclass(frozen=True, kw_only=True)
class Cached:
    """Decoded pictures.

    images      (N, size, size, 3) uint8 RGB, memory-mapped, read-only
    labels      (N,) int64
    items       where each came from
    unreadable  (name, reason) of the pictures that were left out
    """

    images: np.ndarray
    labels: np.ndarray
    items: tuple[Item, ...]
    unreadable: tuple[tuple[str, str], ...]


def decode_once(
    source: Source, items: Sequence[Item], size: int, crop: float = 0.0, interpolation: str = "area"
) -> Cached:
    """`items` decoded and resized to `size` x `size` pixels as `resize` does, from the cache when they are there.

    Of processes that ask for the same at once one decodes and the others wait. A cache file that was damaged is made
    anew. Unreadable pictures are left out with a warning that names them; `InputError` when they are more than
    `MAX_UNREADABLE` of all.
    """
    shape: Shape = (size, crop, interpolation)
    way = [] if (crop, interpolation) == (0.0, "area") else [crop, interpolation]
    key = digest([VERSION, source.fingerprint(), size, *way, *(item.name for item in items)])
    path = cache_folder() / f"{source.name}-{size}-{key}.npy"
    loaded = _load(path, size, len(items))
    if loaded is None:
        with made_by_one(path):
            loaded = _load(path, size, len(items))
            if loaded is None:
                _build(source, items, shape, path)
                loaded = _load(path, size, len(items))
    if loaded is None:
        raise InputError(f"the cache file {path} changes while it is read; delete {path.parent} and try again")
    images, bad = loaded
    kept = tuple(item for position, item in enumerate(items) if position not in bad)
    unreadable = tuple((items[position].title, reason) for position, reason in sorted(bad.items()))
    _warn_unreadable(source, unreadable, len(items))
    labels = np.array([item.label for item in kept], dtype=np.int64)
    return Cached(images=images, labels=labels, items=kept, unreadable=unreadable)


def mapped(path: Path, shape: tuple[int, ...] | None = None) -> np.memmap | None:
    """The array in `path`, memory-mapped and read-only; None when there is no such file, not a whole one, or one of
    another shape.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if shape in (None, found.shape) else None


def let_go(images: np.ndarray) -> None:
    """Take the pages of a mapped array that were read out of this process's memory; the file cache still has them."""
    if isinstance(images.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        images.base.madvise(mmap.MADV_DONTNEED)


def resize(image: np.ndarray, size: int, crop: float = 0.0, interpolation: str = "area") -> np.ndarray:
    """(H, W, 3) -> (size, size, 3). `crop` and `interpolation` as in `InputSpec`.

    A crop takes the very pixels that torchvision's and timm's transforms take.
    """
    if not crop:
        return _resized(image, size, size, interpolation)
    short, (height, width) = int(size / crop + 1e-4), image.shape[:2]
    rows = short if height <= width else int(short * height / width)
    columns = short if width <= height else int(short * width / height)
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    return _resized(image, rows, columns, interpolation)[top : top + size, left : left + size]


def _resized(image: np.ndarray, rows: int, columns: int, interpolation: str) -> np.ndarray:
    if image.shape[:2] == (rows, columns):
        return image
    if interpolation != "area":
        kind = Image.Resampling[interpolation.upper()]
        return np.asarray(Image.fromarray(image).resize((columns, rows), kind))
    height, width = min(image.shape[0], rows), min(image.shape[1], columns)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if (height, width) != (rows, columns):
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return image


def _build(source: Source, items: Sequence[Item], wanted: Shape, path: Path) -> None:
    size = wanted[0]
    shape = (len(items), size, size, 3)
    _need_room(path, int(np.prod(shape)))
    bad: dict[int, str] = {}
    with written_whole(path) as temporary, temporary.open("w+b") as file:
        start, row = _write_header(file, shape), size * size * 3
        _reserve(file, path, start + len(items) * row)
        for position, image in source.each_image(items, 2 * size):
            if isinstance(image, UnreadableImage):
                bad[position] = image.reason
            else:
                file.seek(start + position * row)
                file.write(resize(image, *wanted).tobytes())
        if bad:
            kept = [position for position in range(len(items)) if position not in bad]
            for place, position in enumerate(kept):
                file.seek(start + position * row)
                picture = file.read(row)
                file.seek(start + place * row)
                file.write(picture)
            file.truncate(start + len(kept) * row)
            _write_header(file, (len(kept), *shape[1:]))
        file.flush()
        notes = {"checksum": checksum(temporary), "unreadable": bad}
    write_text(path.with_suffix(".json"), json.dumps(notes))


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> int:
    """The header of an array of bytes, at the beginning of `file`; where its first row begins."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.tell()


def _reserve(file: IO[bytes], path: Path, num_bytes: int) -> None:
    """Take the room on the disk now: a write may fail, but a mapped file without room ends the process."""
    try:
        reserve(file.fileno(), num_bytes)
    except OSError as error:
        raise InputError(
            f"{path.parent} has no room for {num_bytes / 1e6:.0f} MB of decoded pictures ({error.strerror}); "
            "set SOLUTION_CACHE to a folder with more room"
        ) from None


def _load(path: Path, size: int, count: int) -> tuple[np.ndarray, dict[int, str]] | None:
    """The cached pictures and what was left out, or None when there are none or they are damaged."""
    try:
        notes = json.loads(path.with_suffix(".json").read_text())
        bad = {int(position): str(reason) for position, reason in notes["unreadable"].items()}
        images = mapped(path, (count - len(bad), size, size, 3))
        if images is None or images.dtype != np.uint8 or checksum(path) != notes["checksum"]:
            return None
        return images, bad
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def checksum(path: Path) -> int:
    """Of the rows of the array in `path`, whose header is 128 bytes long. Read, not mapped: it stays out of memory."""
    found = 0
    with path.open("rb") as file:
        file.seek(128)
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found


def _need_room(path: Path, num_bytes: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"no cache can be kept in {path.parent} ({error}); set SOLUTION_CACHE to a folder") from None
    free = shutil.disk_usage(path.parent).free
    if free < num_bytes:
        raise InputError(
            f"{path.parent} has {free / 1e6:.0f} MB left, but the decoded pictures take {num_bytes / 1e6:.0f} MB; "
            "set SOLUTION_CACHE to a folder with more room"
        )


def _warn_unreadable(source: Source, unreadable: Sequence[tuple[str, str]], count: int) -> None:
    if not unreadable:
        return
    shown = "; ".join(f"{name}: {reason}" for name, reason in unreadable[:_SHOWN])
    more = f"; and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
    message = f"{source.path}: {len(unreadable)} of {count} pictures cannot be read: {shown}{more}"
    if len(unreadable) > MAX_UNREADABLE * count:
        raise InputError(f"{message}. More than {MAX_UNREADABLE:.0%}: replace or delete them")
    warnings.warn(f"{message}. They are left out", stacklevel=3)
