"""What a net says to photos that nobody has labeled, prepared as for the evaluation: decoded, resized, normalized."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solution.contracts import InputError
from solution.data.decode import decode, resize
from solution.data.files import FolderFiles
from solution.data.layout import is_picture
from solution.data.source import UnreadableImage
from solution.data.views import Normalization, as_batch
from solution.evaluate.classify import Predict

_BATCH = 64


def find_photos(words: Iterable[str]) -> list[Path]:
    """The files that `words` name: files, folders with all that is called like a picture in them, wildcards.

    Each comes once, in the order of the words. A word that names nothing stays as it is: reading it says what is wrong.
    """
    return list(dict.fromkeys(path for word in words for path in _named(word)))


def _named(word: str) -> Iterator[Path]:
    matching = [] if Path(word).exists() else sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - may be absolute
    for path in map(Path, matching or [word]):
        inside = sorted(filter(is_picture, FolderFiles(path).stamps)) if path.is_dir() else []
        yield from (path / name for name in inside) if inside else [path]


def probabilities(
    net: Predict, photos: Sequence[Path], size: int, normalization: Normalization
) -> Iterator[tuple[Path, np.ndarray | UnreadableImage]]:
    """Each photo with its probabilities (num_classes,) float64, or with what is wrong with it.

    size  side in pixels of what `net` sees. `InputError` when it answers with NaN or infinity.
    """
    for some in (photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH)):
        seen = [_pixels(path, size) for path in some]
        readable = [pixels for pixels in seen if isinstance(pixels, np.ndarray)]
        said = iter(_asked(net, np.stack(readable), normalization) if readable else ())
        for path, pixels in zip(some, seen, strict=True):
            yield path, pixels if isinstance(pixels, UnreadableImage) else next(said)


def _pixels(path: Path, size: int) -> np.ndarray | UnreadableImage:
    """(size, size, 3) uint8, or what is wrong."""
    if path.is_dir():
        return UnreadableImage(str(path), "a folder without pictures")
    try:
        return prepared(path.read_bytes(), str(path), size)
    except FileNotFoundError:
        return UnreadableImage(str(path), "no such file, and nothing that it matches as a wildcard")
    except OSError as error:
        return UnreadableImage(str(path), f"cannot be read ({error.strerror})")
    except UnreadableImage as error:
        return error


def prepared(photo: bytes, name: str, size: int) -> np.ndarray:
    """An encoded photo as a net of this input side sees it, (size, size, 3) uint8. Raises `UnreadableImage`."""
    return resize(decode(photo, name, 2 * size), size)


def _asked(net: Predict, images: np.ndarray, normalization: Normalization) -> np.ndarray:
    with torch.inference_mode():
        return softmax(net(as_batch(images, normalization)))


def softmax(logits: Tensor) -> np.ndarray:
    """(B, num_classes) float64. `InputError` for logits that are NaN or infinite."""
    if not torch.isfinite(logits).all():
        raise InputError("the net answers with NaN or infinity: its weights are damaged, or half precision overflowed")
    return logits.double().softmax(1).numpy()
