"""What is in a data set: classes, counts, sizes, brightness, unreadable files, copies; in figures and as a picture."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.data.source import DatasetInfo, Item, Source, UnreadableImage
from solution.runtime import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


MAX_ROWS = 100
"""Classes that are shown; a picture of more would be too tall to open."""

_IMAGES_PER_ROW = 12
_CELL = 96
_GAP = 6
_PAPER, _INK, _FAINT = 255, "#222222", "#777777"
_COLORS = {"train": "#0072B2", "": "#0072B2", "val": "#E69F00", "test": "#BBBBBB"}
_HATCHES = {"val": "///", "test": "..."}
_INCHES_PER_ROW, _MARGIN_INCHES = 0.64, 1.0


def save_overview(source: Source, description: Description, path: Path) -> None:
    """Write the contact sheet and the class histogram of `source` to `path`, a .png file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = description.info.classes[:MAX_ROWS]
    height = _INCHES_PER_ROW * len(shown) + _MARGIN_INCHES
    figure = Figure(figsize=(12, height), facecolor="white")
    FigureCanvasAgg(figure)
    sheet, bars = figure.subplots(1, 2, width_ratios=(2.9, 1), sharey=True)
    top, bottom = 1 - 0.85 / height, 0.15 / height
    figure.subplots_adjust(left=0.1, right=0.965, top=top, bottom=bottom, wspace=0.02)
    _draw_sheet(sheet, contact_sheet(source, len(shown)), shown)
    _draw_bars(bars, description, len(shown))
    _draw_title(figure, description, height)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def contact_sheet(source: Source, num_classes: int) -> np.ndarray:
    """A row of images, evenly spaced over the class, for each of the first classes: (H, W, 3) uint8 on white."""
    pitch = _CELL + _GAP
    sheet = np.full((num_classes * pitch, _IMAGES_PER_ROW * pitch, 3), _PAPER, np.uint8)
    places = _places(source, num_classes)
    for position, image in source.each_image([item for item, _, _ in places], _CELL):
        if not isinstance(image, UnreadableImage):
            _, row, column = places[position]
            _paste(sheet, image, (row * pitch, column * pitch))
    return sheet


def _places(source: Source, num_classes: int) -> list[tuple[Item, int, int]]:
    """(image, row, column) of everything on the sheet."""
    rows: list[list[Item]] = [[] for _ in range(num_classes)]
    for item in source.items:
        if item.label < num_classes:
            rows[item.label].append(item)
    return [(item, row, column) for row, items in enumerate(rows) for column, item in enumerate(_spread(items))]


def _spread(items: Sequence[Item]) -> list[Item]:
    count = min(len(items), _IMAGES_PER_ROW)
    return [items[position] for position in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _paste(sheet: np.ndarray, image: np.ndarray, corner: tuple[int, int]) -> None:
    from PIL import Image

    longest = max(image.shape[:2])
    height, width = (max(1, round(side * _CELL / longest)) for side in image.shape[:2])
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    y, x = corner[0] + (_GAP + _CELL - height) // 2, corner[1] + (_GAP + _CELL - width) // 2
    sheet[y : y + height, x : x + width] = small


def _draw_sheet(axes: Axes, sheet: np.ndarray, classes: Sequence[str]) -> None:
    axes.imshow(sheet, extent=(0, 1, len(classes) - 0.5, -0.5), aspect="auto", interpolation="lanczos")
    axes.set_yticks(range(len(classes)), classes, fontsize=11, color=_INK)
    axes.set_xticks([])
    _bare(axes)


def _draw_bars(axes: Axes, description: Description, num_classes: int) -> None:
    counts = description.counts()[:num_classes]  # (classes, splits)
    left = np.zeros(num_classes)
    for split, column in zip(description.info.counts, counts.T, strict=True):
        style: dict[str, Any] = {
            "color": _COLORS[split],
            "hatch": _HATCHES.get(split),
            "edgecolor": "white",
            "linewidth": 0,
        }
        axes.barh(range(num_classes), column, left=left, height=0.62, label=split or "images", **style)
        left += column
    for row, total in enumerate(left):
        axes.annotate(f"{total:,.0f}", (total, row), (4, 0), textcoords="offset points", va="center", color=_INK)
    axes.set_xlim(0, max(left.max(initial=0) * 1.2, 1))
    axes.set_xticks([])
    axes.tick_params(labelleft=False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2, handlelength=1.4)
    _bare(axes)


def _draw_title(figure: Figure, description: Description, height: float) -> None:
    info, num_images = description.info, int(description.counts().sum())
    left = figure.axes[0].get_position().x0
    figure.text(left, 1 - 0.3 / height, info.title, fontsize=16, weight="bold", color=_INK, va="center")
    facts = [f"{num_images:,} images, {len(info.classes):,} classes"]
    facts.append(f"largest : smallest class = {description.imbalance():.1f}")
    if len(info.classes) > MAX_ROWS:
        facts.append(f"the first {MAX_ROWS} classes are shown")
    figure.text(left, 1 - 0.62 / height, "   ".join(facts), fontsize=11, color=_FAINT, va="center")


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
