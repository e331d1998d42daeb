"""One encoded picture -> (H, W, 3) uint8 RGB, whatever its color model, depth and orientation."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps

from solution.data.source import UnreadableImage

MAX_PIXELS = 100_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


def decode(data: bytes, name: str, at_least: int | None = None) -> np.ndarray:
    """The picture in `data` as (H, W, 3) uint8 RGB, upright, transparency laid over white.

    The kind of file is told by its content, not by its name. With `at_least`, a large JPEG is decoded at a fraction of
    its size, but not below `at_least` pixels a side. Raises `UnreadableImage`, which says what is wrong, for a
    file that is empty, cut short or no picture, and for one above `MAX_PIXELS`.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _pixels(image, name, at_least)
    except Image.UnidentifiedImageError:
        raise UnreadableImage(name, "not an image (neither JPEG, PNG, WebP, BMP nor GIF by its content)") from None
    except UnreadableImage:
        raise
    except _BROKEN as error:
        raise UnreadableImage(name, f"broken or cut short ({error})") from None


def _pixels(image: Image.Image, name: str, at_least: int | None) -> np.ndarray:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(name, f"{width} x {height} pixels are more than {MAX_PIXELS:,}: refused")
    if at_least is not None and image.mode in ("L", "RGB"):
        image.draft(None, (at_least, at_least))
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(_rgb(image))  # (H, W, 3)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit gray picture's high bytes; Pillow's own conversion would clip at 255 instead."""
    values = np.asarray(image).astype(np.int64)  # (H, W)
    return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
