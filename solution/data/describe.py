"""What is in a data set: classes, counts, sizes, brightness, unreadable files, and which pictures are copies."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from solution.data.source import DatasetInfo, Item, Source, UnreadableImage

MAX_HASH_DISTANCE = 10
"""Bits of 64 in which the hashes of a near-duplicate pair may differ."""
MIN_CORRELATION = 0.95
"""Pearson correlation that the color thumbnails of a near-duplicate pair reach."""

_THUMBNAIL_SIDE = 16
_BLOCK_ROWS = 256
_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Signature:
    """What is kept of an image to compare it with others.

    digest     hash of shape and pixels, equal for equal pictures
    bits       64-bit perceptual hash
    thumbnail  (16, 16, 3) uint8, each pixel the mean of its patch
    """

    digest: str
    bits: int
    thumbnail: np.ndarray


def signature(image: np.ndarray) -> Signature:
    """The signature of an (H, W, 3) uint8 image.

    The perceptual hash keeps the signs of the 8 x 8 lowest frequencies around their median (C. Zauner,
    "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). It does not see mirror images.
    """
    import imagehash
    from PIL import Image

    picture = Image.fromarray(image)
    thumbnail = picture.resize((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)
    packed = np.packbits(imagehash.phash(picture).hash)
    return Signature(
        digest=hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, person=_shape(image)).hexdigest(),
        bits=int.from_bytes(packed.tobytes(), "big"),
        thumbnail=np.asarray(thumbnail),
    )


def _shape(image: np.ndarray) -> bytes:
    return b"".join(side.to_bytes(8, "big") for side in image.shape[:2])


def exact_groups(signatures: Sequence[Signature]) -> list[list[int]]:
    """Positions of images with equal pixels, one list for each picture that occurs more than once."""
    positions = defaultdict(list)
    for position, one in enumerate(signatures):
        positions[one.digest].append(position)
    return [group for group in positions.values() if len(group) > 1]


def near_groups(signatures: Sequence[Signature]) -> np.ndarray:
    """A group number for every image, (N,) int; near-duplicates, and their near-duplicates, share one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num_images = len(signatures)
    pairs = np.concatenate([near_pairs(signatures), _exact_pairs(signatures)])
    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(num_images, num_images))
    return connected_components(edges, directed=False)[1]


def _exact_pairs(signatures: Sequence[Signature]) -> np.ndarray:
    pairs = [(group[0], other) for group in exact_groups(signatures) for other in group[1:]]
    return np.array(pairs, np.int64).reshape(-1, 2)


def near_pairs(signatures: Sequence[Signature]) -> np.ndarray:
    """Pairs (first, second) of near-duplicates, (P, 2) int64, first < second.

    Every pair of hashes is compared, a block of rows at a time: 50 million comparisons take about 0.2 s.
    """
    bits = np.array([one.bits for one in signatures], np.uint64)
    thumbnails = _centered([one.thumbnail for one in signatures])
    found = [_alike(thumbnails, some) for some in _close_hashes(bits)]
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _close_hashes(bits: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(bits), _BLOCK_ROWS):
        rows = bits[start : start + _BLOCK_ROWS]
        distance = np.bitwise_count(rows[:, None] ^ bits[None, start:])  # (rows, N - start)
        pairs = np.argwhere(np.triu(distance <= MAX_HASH_DISTANCE, k=1)) + start
        for cut in range(0, len(pairs), _PAIRS_AT_ONCE):
            yield pairs[cut : cut + _PAIRS_AT_ONCE]


def _centered(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    flat = np.array(thumbnails, np.float32).reshape(len(thumbnails), _THUMBNAIL_SIDE**2 * 3)  # (N, 768)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _alike(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    correlation = np.einsum("ij,ij->i", thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]])
    return pairs[correlation >= MIN_CORRELATION]


Follow = Callable[[Iterable], Iterable]
"""Passes an iterable on and may show how far it is, such as `rich.progress.track`."""

FULL_SIZE = 1 << 30
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is remembered of one image: its size in pixels, mean luma (0 black, 1 white) and signature."""

    item: Item
    width: int
    height: int
    brightness: float
    signature: Signature


@dataclass(frozen=True, kw_only=True)
class Description:
    """A data set, described.

    info        its name, classes and counts of readable images
    looks       one for each readable image, in the order of the source
    unreadable  what is wrong with each of the others
    copies      groups of images with equal pixels
    near        groups of near-duplicates, copies among them
    """

    info: DatasetInfo
    looks: tuple[Look, ...]
    unreadable: tuple[UnreadableImage, ...]
    copies: tuple[tuple[Item, ...], ...]
    near: tuple[tuple[Item, ...], ...]

    def counts(self) -> np.ndarray:
        """Readable images per class and split, (classes, splits) int."""
        columns = [[self.info.counts[split][name] for name in self.info.classes] for split in self.info.counts]
        return np.array(columns, int).reshape(-1, len(self.info.classes)).T

    def sizes(self) -> dict[str, tuple[float, float, float]]:
        """{"width": (min, median, max) in pixels, "height": ..., "width / height": ...}; empty without images."""
        if not self.looks:
            return {}
        width, height = np.array([(look.width, look.height) for look in self.looks], float).T
        values = {"width": width, "height": height, "width / height": width / height}
        return {name: (float(some.min()), float(np.median(some)), float(some.max())) for name, some in values.items()}

    def brightness(self) -> np.ndarray:
        """Mean luma of each class, (classes,), 0 to 1; NaN for an empty class."""
        labels = np.array([look.item.label for look in self.looks], int)
        sums = np.bincount(labels, [look.brightness for look in self.looks], minlength=len(self.info.classes))
        counts = np.bincount(labels, minlength=len(self.info.classes))
        return np.where(counts, sums / np.maximum(counts, 1), np.nan)

    def imbalance(self) -> float:
        """Images in the largest class per image in the smallest; infinite when a class is empty."""
        totals = self.counts().sum(axis=1)
        return float(totals.max() / totals.min()) if totals.min() else float("inf")


def describe(source: Source, follow: Follow = iter) -> Description:
    """Look at every image of `source` once, at full size. What cannot be read is listed, never raised."""
    looks: dict[int, Look] = {}
    unreadable: dict[int, UnreadableImage] = {}
    for position, image in follow(source.each_image(source.items, FULL_SIZE)):
        if isinstance(image, UnreadableImage):
            unreadable[position] = image
        else:
            looks[position] = look_at(source.items[position], image)
    ordered = tuple(looks[position] for position in sorted(looks))
    signatures = [look.signature for look in ordered]
    return Description(
        info=_info(source, ordered),
        looks=ordered,
        unreadable=tuple(unreadable[position] for position in sorted(unreadable)),
        copies=_items(ordered, exact_groups(signatures)),
        near=_items(ordered, groups_of(near_groups(signatures))),
    )


def look_at(item: Item, image: np.ndarray) -> Look:
    """The `Look` of `item`, whose picture is (H, W, 3) uint8."""
    height, width = image.shape[:2]
    mark = signature(image)
    brightness = float(mark.thumbnail.mean(axis=(0, 1)) @ _LUMA) / 255
    return Look(item=item, width=width, height=height, brightness=brightness, signature=mark)


def _info(source: Source, looks: Iterable[Look]) -> DatasetInfo:
    counts = {split: dict.fromkeys(source.classes, 0) for split in source.splits}
    for look in looks:
        counts[look.item.split][source.classes[look.item.label]] += 1
    return DatasetInfo(
        name=source.name, classes=source.classes, counts=counts, source=str(source.path), rendered=source.rendered
    )


def groups_of(numbers: np.ndarray) -> list[list[int]]:
    """Positions that share a group number, (N,) int, with at least one other."""
    order = np.argsort(numbers, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [run.tolist() for run in runs if len(run) > 1]


def _items(looks: Sequence[Look], groups: Iterable[Sequence[int]]) -> tuple[tuple[Item, ...], ...]:
    return tuple(tuple(looks[position].item for position in group) for group in groups)


def across_splits(groups: Iterable[Sequence[Item]]) -> list[Sequence[Item]]:
    """Those groups whose images lie in more than one split."""
    return [group for group in groups if len({item.split for item in group}) > 1]


def across_classes(groups: Iterable[Sequence[Item]]) -> list[Sequence[Item]]:
    """Those groups whose images are labeled with more than one class."""
    return [group for group in groups if len({item.label for item in group}) > 1]
