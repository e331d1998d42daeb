"""One picture of a data set: a row of images and a bar of counts for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.data.describe import Description
from solution.data.source import Item, Source, UnreadableImage
from solution.runtime import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
