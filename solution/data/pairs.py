"""Pictures with a mask each, read where they lie: which pixel is of which class.

``images/`` and ``masks/`` hold files of equal stems, inside a folder for each split (``train/images``), around such
folders (``images/train``), or without splits, which are then drawn. A mask is a palette or gray PNG: its values are the
classes, 255 is ignored. Names of classes are in ``classes.txt``, one a line; without it the values that occur are the
classes. Masks of 0 and 255 alone have two: there 255 is the second.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from solution.contracts import InputError
from solution.data.decode import MAX_PIXELS, Cached, decode, decode_once, let_go
from solution.data.source import Files, Item, Source, UnreadableImage, class_name, in_order
from solution.data.splits import is_picture, split_called
from solution.data.views import Normalization, Plain, PlainLoader, Viewer, Views, as_batch, as_is

IGNORED, UNKNOWN = 255, -100
"""In masks: pixels that count nowhere, in files and in batches; the latter is what PyTorch's losses ignore."""
NAMES = "classes.txt"
_IMAGES, _MASKS = (
    ("images", "image", "imgs", "img", "jpegimages"),
    ("masks", "mask", "segmentationclass", "annotations"),
)
_INDEXED = ("P", "L", "1", "I;16", "I")
_SHOWN = 3
_Read = Callable[[str], bytes]


class PairSource(Source):
    """Pictures and their masks, wherever `files` reads them from."""

    of_pixels = True

    def __init__(self, files: Files, name: str) -> None:
        self.name, self.path, self.files = name, files.path, files
        places = {name: _masks_of(name, files) for name in sorted(files.stamps) if _in(name, _IMAGES)}
        without = [f"{name} has no mask" for name, masks in places.items() if not masks]
        _refuse(files, without, "add them beside it in masks/, with the picture's stem, or take the picture out")
        self.places = {name: masks[0] for name, masks in places.items()}
        self.items = in_order(Item(split=_split(name), label=0, name=name) for name in self.places)
        self.classes, self.numbers = _classes(files, tuple(self.places.values()))

    def read(self, item: Item) -> bytes:
        """The encoded picture."""
        return self.files.read(item.name)

    def image(self, item: Item) -> np.ndarray:
        """The picture as (H, W, 3) uint8 RGB."""
        return decode(self.read(item), item.name)

    def mask(self, item: Item) -> np.ndarray:
        """(H, W) uint8: the class of each pixel, `IGNORED` where it counts nowhere. `InputError` unless it fits."""
        name = self.places[item.name]
        found = _values(self.files.read, name)
        classes = self.numbers[found]
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(self.read(item))) as picture:
            sides = picture.size[::-1]
        if classes.shape not in (sides, sides[::-1]):
            raise InputError(
                f"{self.path}: {name} has {classes.shape[1]} x {classes.shape[0]} pixels, and its picture {sides[1]} x "
                f"{sides[0]}: make the mask anew from this picture"
            )
        return classes

    def fingerprint(self) -> str:
        """A key of all files' names, sizes and times."""
        return self.files.fingerprint()


class _MaskSource(Source):
    """The masks of a `PairSource` as pictures, so that they are kept, sized and checked as pictures are."""

    def __init__(self, pairs: PairSource) -> None:
        self.name, self.path, self.pairs = f"{pairs.name}-masks", pairs.path, pairs
        self.classes, self.items = pairs.classes, pairs.items

    def read(self, item: Item) -> bytes:
        """The encoded mask."""
        return self.pairs.files.read(self.pairs.places[item.name])

    def image(self, item: Item) -> np.ndarray:
        """The mask as (H, W, 3) uint8, three times the same."""
        return np.repeat(self.pairs.mask(item)[..., None], 3, axis=2)

    def fingerprint(self) -> str:
        """Of the pairs."""
        return self.pairs.fingerprint() + "masks"


def holds_pairs(files: Files) -> bool:
    """Whether there are pictures in a folder of images, and others in a folder of masks."""
    return all(any(_in(name, folders) for name in files.stamps) for folders in (_IMAGES, _MASKS))


def _in(name: str, folders: Sequence[str]) -> bool:
    return is_picture(name) and any(part.lower() in folders for part in PurePosixPath(name).parts[:-1])


def _split(name: str) -> str:
    return next((split for part in PurePosixPath(name).parts[:-1] if (split := split_called(part))), "")


def _masks_of(picture: str, files: Files) -> list[str]:
    """Files that are called like its mask."""
    path = PurePosixPath(picture)
    place = next(at for at, part in enumerate(path.parts) if part.lower() in _IMAGES)
    known = {folder.split("/")[place] for folder in files.folders if folder.count("/") == place}
    found = []
    for folder in (one for one in sorted(known) if one.lower() in _MASKS):
        stem = PurePosixPath(*path.parts[:place], folder, *path.parts[place + 1 : -1], path.stem)
        found += [
            f"{stem}{end}" for end in (".png", "_mask.png", ".bmp", ".gif", ".tif") if f"{stem}{end}" in files.stamps
        ]
    return found


def _refuse(files: Files, wrong: Sequence[str], advice: str) -> None:
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"{files.path}: {', '.join(wrong[:_SHOWN])}{more}: {advice}")


def _values(read: _Read, name: str) -> np.ndarray:
    """(H, W) of the numbers in a mask. `InputError` when it is none."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(read(name))) as image:
            if image.mode not in _INDEXED:
                raise InputError(f"{name} is no mask: it has colors ({image.mode}), not a number for each pixel")
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{name} has more than {MAX_PIXELS:,} pixels: refused")
            found = np.asarray(image).astype(np.int64)
    except (InputError, UnreadableImage) as error:
        raise InputError(f"{error}; save it as a palette or gray PNG") from error
    except Exception as error:  # whatever the decoder makes of a damaged file
        raise InputError(f"{name} cannot be read ({error}); replace it, or take its picture out") from None
    if found.size and not 0 <= found.min() <= found.max() <= IGNORED:
        raise InputError(f"{name} holds {found.max()}: classes are numbers below {IGNORED}")
    return found


def _classes(files: Files, masks: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Their names, and (256,) the class of each value."""
    found = _found(files, masks)
    numbers = np.full(IGNORED + 1, IGNORED, dtype=np.uint8)
    named = next((name for name in sorted(files.stamps) if PurePosixPath(name).name == NAMES), None)
    values = sorted(found) if found == {0, IGNORED} else sorted(found - {IGNORED})
    if named is None:
        numbers[values] = np.arange(len(values))
        return tuple(str(number) for number in range(len(values))), numbers
    text = files.read(named).decode(errors="surrogateescape")
    names = tuple(class_name(line.strip()) for line in text.splitlines() if line.strip())
    if found == {0, IGNORED} and len(names) == 2:
        numbers[[0, IGNORED]] = 0, 1
        return names, numbers
    if beyond := [value for value in found - {IGNORED} if value >= len(names)]:
        raise InputError(
            f"{files.path}: masks hold the value {max(beyond)}, and {named} names {len(names)} classes, 0 to "
            f"{len(names) - 1}: name them all, or set what counts nowhere to {IGNORED}"
        )
    numbers[: len(names)] = np.arange(len(names))
    return names, numbers


_SEEN: dict[str, set[int]] = {}


def _found(files: Files, masks: tuple[str, ...]) -> set[int]:
    """All values that occur; looked up once in a process."""
    key = f"{files.path} {files.fingerprint()}"
    if key not in _SEEN:
        _SEEN[key] = set(
            functools.reduce(np.union1d, (np.unique(_values(files.read, name)) for name in masks)).tolist()
        )
    return _SEEN[key]


def decoded(source: PairSource, items: Sequence[Item], size: int, crop: float, interpolation: str
            ) -> tuple[Cached, np.ndarray]:  # fmt: skip
    """Pictures and their masks (N, size, size, 3) alike. `InputError` for a picture that cannot be read."""
    pictures = decode_once(source, items, size, crop, interpolation)
    masks = decode_once(_MaskSource(source), items, size, crop, "nearest")
    if bad := [*pictures.unreadable, *masks.unreadable]:
        raise InputError(f"{source.path}: {bad[0][0]}: {bad[0][1]}; replace it, or take picture and mask out")
    return pictures, masks.images


def _targets(masks: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, S, S) int64."""
    labels = torch.from_numpy(masks[..., 0].astype(np.int64))
    return labels.masked_fill_(labels == IGNORED, UNKNOWN)


class PlainPairs(Plain):
    """Cached pictures and masks as they are; fetched a batch at a time."""

    def __init__(self, cached: Cached, masks: np.ndarray, normalization: Normalization) -> None:
        super().__init__(cached, normalization)
        self.masks = masks

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) normalized float32 and (B, S, S) int64."""
        images, masks = self.images[list(positions)], self.masks[list(positions)]
        let_go(self.images)
        return as_batch(images, self.normalization), _targets(masks)


class PairViews(Views):
    """Random views of cached pictures, the masks turned and cut as they are; fetched a batch of (view, index) pairs."""

    def __init__(self, cached: Cached, masks: np.ndarray, viewer: Viewer, normalization: Normalization) -> None:
        super().__init__(cached, viewer, normalization)
        self.masks = masks

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        """(B, 3, size, size) normalized float32 and (B, size, size) int64."""
        made = [self.view.with_mask(self.images[index], self.masks[index], view, index) for view, index in pairs]
        images, masks = (np.stack(some) for some in zip(*made, strict=True))
        return as_batch(images, self.normalization), _targets(masks)


def plain_pairs(cached: Cached, masks: np.ndarray, normalization: Normalization, batch_size: int) -> PlainLoader:
    """Batches of pictures and masks as they are, in straight order, in this process."""
    pairs = cast("Dataset[tuple[Tensor, Tensor]]", PlainPairs(cached, masks, normalization))
    return DataLoader(pairs, batch_size=batch_size, collate_fn=as_is, generator=torch.Generator())
