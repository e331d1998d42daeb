"""What is in a data set: classes, counts, sizes, brightness, copies, unreadable files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from solution.data.dataset_info import DatasetInfo
from solution.data.duplicates import Signature, exact_groups, near_groups, signature
from solution.data.source import Item, Source, UnreadableImage

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
