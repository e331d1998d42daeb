"""Cost against quality: MACs and macro F1, lines of equal score, and who is not beaten in both."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.evaluate.score import Scorer
from solution.report.published import RESULTS
from solution.report.style import HUES, Drawing, canvas, color, drawn, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation


_STEPS, _LABELS, _EDGE = 60, 54, 3
"""Steps along each axis in which scores are computed; the one where their lines are named, near the right; and how many
from top and bottom carry no name, which the frame would cut."""

_FEW = 12
"""Series of more points have small marks, and only those of their front are told in words."""

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
    f1: float
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together. `look` is "published", "before", "after" or "other"; `joined` draws their front."""

    name: str
    points: tuple[Point, ...]
    look: str = "other"
    joined: bool = False


_NAMES = {"After": "published After", "second team, public": "second team"}

PUBLISHED = Series(
    name="published (private photos)",
    points=tuple(Point(macs=result.macs, f1=result.f1, name=_NAMES.get(result.name, "")) for result in RESULTS),
    look="published",
    joined=True,
)


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both MACs and F1, by rising MACs."""
    best, kept = -np.inf, []
    for point in sorted(points, key=lambda point: (point.macs, -point.f1)):
        if point.f1 > best:
            best = point.f1
            kept.append(point)
    return kept


def pareto(series: Sequence[Series], name: str = "pareto", scorer: Scorer | None = None) -> Drawing:
    """MACs against macro F1 over lines of equal score. Points below the cliff are left out, and counted."""
    scorer = scorer or Scorer()
    seen = [_above(one, scorer.cliff_f1) for one in series]
    hidden = sum(len(one.points) for one in series) - sum(len(one.points) for one in seen)
    with canvas(4.0) as (figure, axes):
        for index, one in enumerate(seen):
            _draw(axes, one, index)
        axes.margins(0.12)
        _equal_scores(axes, scorer)
        quiet(axes, "both")
        axes.set(xlabel="million MACs of one image", ylabel="macro F1")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        _name(axes, seen)
        below = f" {hidden} below the cliff at F1 {scorer.cliff_f1} are left out." if hidden else ""
        caption = "Up and left is better; thin lines join equal scores (lower is better)." + below
        return drawn(figure, name, _told(seen) + below, caption)


def _above(series: Series, cliff_f1: float) -> Series:
    points = tuple(point for point in series.points if point.f1 >= cliff_f1)
    return Series(name=series.name, points=points, look=series.look, joined=series.joined)


def _draw(axes: Axes, series: Series, index: int) -> None:
    ink = color({"published": "faint", "other": HUES[index % len(HUES)]}.get(series.look, series.look))
    hollow = series.look in ("published", "before")
    marker = {"published": "o", "before": "s", "after": "D"}.get(series.look, _OTHERS[index % len(_OTHERS)])
    macs, f1 = [point.macs / 1e6 for point in series.points], [point.f1 for point in series.points]
    face = "none" if hollow else ink
    size = 22 if series.look == "published" or len(series.points) > _FEW else 46
    axes.scatter(macs, f1, size, marker=marker, facecolor=face, edgecolor=ink, label=series.name, zorder=3)
    if series.joined:
        best = front(series.points)
        x, y = [point.macs / 1e6 for point in best], [point.f1 for point in best]
        axes.step(x, y, where="post", color=ink, linewidth=1.2, zorder=2)


def _name(axes: Axes, series: Sequence[Series]) -> None:
    """Names beside the points that have one, at the corner, near or farther off, that covers least; the first choice is
    away from the front's line, on the side that has room."""
    axes.figure.draw_without_rendering()  # the layout is settled: what covers what can be measured
    places = [(point.macs / 1e6, point.f1) for one in series for point in one.points]
    marks = axes.transData.transform(places) if places else ()
    middle = statistics.mean(axes.get_xlim())
    placed = []
    for own, point in ((one, point) for one in series for point in one.points if point.name):
        side = 1 if point.macs / 1e6 < middle else -1
        rise = 1 if point.f1 == max(other.f1 for other in own.points) else -1
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
    look = {"fontsize": 9, "color": color("faint")}
    look |= {"ha": "left" if spot[0] > 0 else "right", "va": "bottom" if spot[1] > 0 else "top"}
    return axes.annotate(point.name, (point.macs / 1e6, point.f1), spot, textcoords="offset points", **look, **options)


def _covered(axes: Axes, name: Annotation, marks: Iterable[tuple[float, float]]) -> tuple[bool, int, int]:
    """How bad the place of `name` is: whether it leaves the frame, and how many texts and how many marks it covers."""
    box = name.get_window_extent()
    inside = all(axes.bbox.padded(_NEAR).contains(*corner) for corner in (box.min, box.max))
    texts = sum(box.overlaps(text.get_window_extent()) for text in axes.texts if text is not name)
    return not inside, texts, sum(box.padded(_NEAR).contains(*mark) for mark in marks)


def _equal_scores(axes: Axes, scorer: Scorer) -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    left, low, high = max(left, 0), max(low, scorer.cliff_f1), min(high, 1)
    macs, f1 = np.linspace(left, right, _STEPS), np.linspace(low, high, _STEPS)
    scores = np.array([[scorer(1e6 * x, y) for x in macs] for y in f1])
    lines = axes.contour(macs, f1, scores, 7, colors=[color("faint")], linewidths=0.5, linestyles="dotted")
    column = scores[_EDGE:-_EDGE, _LABELS]
    told = [level for level in lines.levels if column.min() < level < column.max()]
    places = [(macs[_LABELS], f1[_EDGE + np.abs(column - level).argmin()]) for level in told]
    axes.clabel(lines, told, fontsize=8, fmt="%.2f", manual=places)
    axes.set(xlim=(left, right), ylim=(low, high))


def _told(seen: Sequence[Series]) -> str:
    said = []
    for one in seen:
        if one.look == "published":
            said.append(f"{len(one.points)} published results")
            continue
        points = one.points
        if len(points) > _FEW:
            said.append(f"{len(points)} {one.name}, the front of them")
            points = front(points)
        said += [
            f"{one.name} {point.name}".rstrip() + f": {point.macs:,.0f} MACs, F1 {point.f1:.4f}" for point in points
        ]
    return "MACs against macro F1. " + "; ".join(said) + "."
