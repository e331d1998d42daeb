"""Cost against quality: MACs and a figure of quality, who is not beaten in both; and forms of nets in three panels."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.evaluate.score import Scorer
from solution.report.style import HUES, Drawing, canvas, color, drawn, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation


_STEPS, _LABELS, _EDGE = 60, 54, 3
"""Steps along each axis in which scores are computed; the one where their lines are named, near the right; and how many
from top and bottom carry no name, which the frame would cut."""

_FEW = 12
"""Series of more points have small marks, and the text alternative names only those of their front."""

_FAR = (4, 17, 30)
"""Points above or below its mark at which a name may stand; but for the nearest, a line leads to it."""

_NEAR = 5
"""Pixels between a name and a mark's middle below which the mark is touched; a name may cross the frame by as many."""

_OTHERS = ("^", "v", "P", "X", "<", ">")
"""Markers of series that are neither published, Before nor After."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One net: its cost and its quality, and a name where it deserves one."""

    macs: float
    quality: float
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together. `look` is "published", "before", "after" or "other"; `joined` draws their front.

    Published points are of others: they may be left out where they would push the user's own aside.
    """

    name: str
    points: tuple[Point, ...]
    look: str = "other"
    joined: bool = False


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both MACs and F1, by rising MACs."""
    best, kept = -np.inf, []
    for point in sorted(points, key=lambda point: (point.macs, -point.quality)):
        if point.quality > best:
            best = point.quality
            kept.append(point)
    return kept


def pareto(
    series: Sequence[Series], name: str = "pareto", *, quality: str = "macro F1", scorer: Scorer | None = None
) -> Drawing:
    """MACs against `quality`; with a `scorer` over lines of equal score, published points below its cliff left out."""
    seen = list(series)
    if scorer is not None:
        seen = [_above(one, scorer.cliff_f1) if one.look == "published" else one for one in series]
    hidden = sum(len(one.points) for one in series) - sum(len(one.points) for one in seen)
    seen = [one for one in seen if one.points]
    with canvas(4.8) as (figure, axes):
        for index, one in enumerate(seen):
            _draw(axes, one, index)
        axes.margins(0.12)
        if scorer is not None:
            _equal_scores(axes, scorer)
        quiet(axes, "both")
        axes.set(xlabel="million MACs of one image", ylabel=quality)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        _name(axes, seen)
        below = (
            f" {hidden} published below the cliff at F1 {scorer.cliff_f1} are left out." if scorer and hidden else ""
        )
        lines = " Thin lines join equal scores (lower is better)." if scorer else ""
        return drawn(figure, name, _alt(seen, quality) + below, "Up and left is better." + lines + below)


def _above(series: Series, cliff_f1: float) -> Series:
    return replace(series, points=tuple(point for point in series.points if point.quality >= cliff_f1))


def _draw(axes: Axes, series: Series, index: int) -> None:
    ink = color({"published": "faint", "other": HUES[index % len(HUES)]}.get(series.look, series.look))
    hollow = series.look in ("published", "before")
    marker = {"published": "o", "before": "s", "after": "D"}.get(series.look, _OTHERS[index % len(_OTHERS)])
    x, y = [point.macs / 1e6 for point in series.points], [point.quality for point in series.points]
    face = "none" if hollow else ink
    size = 22 if series.look == "published" or len(series.points) > _FEW else 46
    axes.scatter(x, y, size, marker=marker, facecolor=face, edgecolor=ink, label=series.name, zorder=3)
    if series.joined:
        best = front(series.points)
        x, y = [point.macs / 1e6 for point in best], [point.quality for point in best]
        axes.step(x, y, where="post", color=ink, linewidth=1.2, zorder=2)


def _name(axes: Axes, series: Sequence[Series]) -> None:
    """Names beside the points that have one, at the corner, near or farther off, that covers least; the first choice is
    away from the front's line, on the side that has room."""
    if figure := axes.get_figure(root=True):
        figure.draw_without_rendering()  # the layout is settled: what covers what can be measured
    places = [(point.macs / 1e6, point.quality) for one in series for point in one.points]
    marks = axes.transData.transform(places) if places else ()
    middle = statistics.mean(axes.get_xlim())
    placed = []
    for own, point in ((one, point) for one in series for point in one.points if point.name):
        side = 1 if point.macs / 1e6 < middle else -1
        rise = 1 if point.quality == max(other.quality for other in own.points) else -1
        corners = [(side, rise), (-side, rise), (side, -rise), (-side, -rise)]
        spots = [(5 * right, far * up) for far in _FAR for right, up in corners]
        covered = []
        for spot in spots:
            name = _named(axes, point, spot)
            covered.append(_covered(axes, name, marks))
            name.remove()
        placed.append((point, spots[covered.index(min(covered))]))
        _named(axes, *placed[-1])
    line = {"arrowstyle": "-", "linewidth": 0.6, "color": color("faint"), "shrinkA": 0, "shrinkB": 3}
    for point, spot in placed:
        if abs(spot[1]) > _FAR[0]:
            _named(axes, replace(point, name=""), spot, arrowprops=line)


def _named(axes: Axes, point: Point, spot: tuple[int, int], **options: Any) -> Annotation:
    look: dict[str, Any] = {"fontsize": 9, "color": color("faint")}
    look |= {"ha": "left" if spot[0] > 0 else "right", "va": "bottom" if spot[1] > 0 else "top"}
    return axes.annotate(
        point.name, (point.macs / 1e6, point.quality), spot, textcoords="offset points", **look, **options
    )


def _covered(axes: Axes, name: Annotation, marks: Iterable[tuple[float, float]]) -> tuple[bool, int, int]:
    """How bad the place of `name` is: whether it leaves the frame, and how many texts and how many marks it covers."""
    box = name.get_window_extent()
    inside = all(axes.bbox.padded(_NEAR).contains(*corner) for corner in (box.min, box.max))
    texts = sum(box.overlaps(text.get_window_extent()) for text in axes.texts if text is not name)
    return not inside, texts, sum(box.padded(_NEAR).contains(*mark) for mark in marks)


def _equal_scores(axes: Axes, scorer: Scorer) -> None:
    """Lines above the cliff only: below it the score hardly depends on F1."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    left, high = max(left, 0), min(high, 1)
    if high > scorer.cliff_f1:
        macs, f1 = np.linspace(left, right, _STEPS), np.linspace(max(low, scorer.cliff_f1), high, _STEPS)
        scores = np.array([[scorer(1e6 * x, y) for x in macs] for y in f1])
        lines = axes.contour(macs, f1, scores, 7, colors=[color("faint")], linewidths=0.5, linestyles="dotted")
        column = scores[_EDGE:-_EDGE, _LABELS]
        labeled = [level for level in lines.levels if column.min() < level < column.max()]
        places = [(macs[_LABELS], f1[_EDGE + np.abs(column - level).argmin()]) for level in labeled]
        axes.clabel(lines, labeled, fontsize=8, fmt="%.2f", manual=places)
    axes.set(xlim=(left, right), ylim=(low, high))


def _alt(seen: Sequence[Series], quality: str) -> str:
    """The text alternative: all points, or the front of a long series."""
    short, parts = quality.removeprefix("macro "), []
    for one in seen:
        if one.look == "published":
            parts.append(f"{len(one.points)} published results")
            continue
        points = one.points
        if len(points) > _FEW:
            parts.append(f"{len(points)} {one.name}, the front of them")
            points = tuple(front(points))
        for point in points:
            own = "" if one.name == point.name else point.name
            parts.append(f"{one.name} {own}".rstrip() + f": {point.macs:,.0f} MACs, {short} {point.quality:.4f}")
    return f"MACs against {quality}. " + "; ".join(parts) + "."


@dataclass(frozen=True, kw_only=True)
class CostLine:
    """One net in one form. megabytes: of the file as stored; packed: of the packed file, if any; ms: of one image."""

    name: str
    megabytes: float
    quality: float
    packed: float | None = None
    ms: float | None = None


def costs_drawing(lines: Sequence[CostLine], quality: str, name: str) -> Drawing:
    """Size, quality and latency of `lines` from top to bottom; `quality` names the figure in the middle panel."""
    ink = color(HUES[0])
    with canvas(1.6 + 0.78 * len(lines), 3) as (figure, (sizes, worth, speed)):
        for place, one in enumerate(lines):
            sizes.scatter(one.megabytes, place, 42, marker="s", facecolor="none", edgecolor=ink)
            if one.packed:
                sizes.scatter(one.packed, place, 42, marker="s", color=ink)
            worth.scatter(one.quality, place, 42, marker="o", color=ink)
            if one.ms:
                speed.scatter(one.ms, place, 42, marker="^", color=ink)
        titles = ("MB on disk; filled: packed", quality, "ms of one image")
        for axes, title in zip((sizes, worth, speed), titles, strict=True):
            axes.set(title=title, ylim=(len(lines) - 0.5, -0.5), yticks=range(len(lines)))
            axes.set_yticklabels([one.name for one in lines])
            quiet(axes, "both")
            if axes is worth:  # cropped: from 0 on, differences between good nets could not be seen
                axes.margins(x=0.06)
            else:
                axes.set_xlim(0, 1.06 * max(axes.dataLim.x1, 1e-9))  # whole marks at the edge, too
        listed = "; ".join(f"{one.name} {one.megabytes:.2f} MB, {one.quality:.4g}" for one in lines)
        caption = (
            f"The axis of {quality} is cropped. Nets without a time only simulate integers. The packed file holds "
            "exactly what the checkpoint holds."
        )
        return drawn(figure, name, f"Size as stored and {quality}. {listed}.", caption)
