"""Drawings of rows and runs: cost against quality and who is not beaten in both, forms of nets in three panels,
training curves, and what `solution.evaluate.speed` measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.evaluate.score import Scorer
from solution.evaluate.speed import Speed
from solution.report.style import DASHES, HUES, MARKERS, Drawing, canvas, color, drawn, quiet
from solution.report.tables import Table
from solution.run_folder import History

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
        low, high = axes.get_ylim()
        if high > 1 >= max((point.quality for one in seen for point in one.points), default=0):
            axes.set_ylim(low, 1 + 0.02 * (1 - low))  # no quality is above 1
        axes.set(xlabel="million MACs of one image", ylabel=quality)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        _name(axes, seen)
        below = (
            f" {hidden} published below the cliff at F1 {scorer.cliff_f1} are left out." if scorer and hidden else ""
        )
        lines = " Thin lines join equal scores (lower is better)." if scorer else ""
        return drawn(figure, name, _front_alt(seen, quality) + below, "Up and left is better." + lines + below)


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


def _front_alt(seen: Sequence[Series], quality: str) -> str:
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


PANELS: Mapping[str, str] = {"loss": "training loss", "dev_f1": "macro F1 on the dev split"}


def training_curves(
    histories: Mapping[str, History], panels: Mapping[str, str] = PANELS, name: str = "curves"
) -> Drawing:
    """{stage: history} as lines over epochs, one panel for each column of `panels` that a history has."""
    shown = {column: title for column, title in panels.items() if any(column in some for some in histories.values())}
    with canvas(0.6 + 2.0 * len(shown), len(shown), sharex=True, squeeze=False) as (figure, grid):
        for axes, (column, title) in zip(grid[:, 0], shown.items(), strict=True):
            for index, (stage, history) in enumerate(histories.items()):
                if column in history:
                    ink, dash = _curve_look(stage, index)
                    axes.plot(history["epoch"], history[column], dash, color=ink, label=stage)
            axes.set_title(title)
            quiet(axes)
        grid[-1, 0].set_xlabel("epoch of the stage")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        caption = "One line per stage; kept is the best epoch on the dev split, or the last with keep=last."
        return drawn(figure, name, _curves_alt(histories), caption)


def _curve_look(stage: str, index: int) -> tuple[str, str]:
    known = {"before": (color("before"), "--"), "after": (color("after"), "-")}
    return known.get(stage, (color(HUES[(index + 2) % len(HUES)]), DASHES[(index + 2) % len(DASHES)]))


def _curves_alt(histories: Mapping[str, History]) -> str:
    lines = []
    for stage, history in histories.items():
        best = f", best dev F1 {max(history['dev_f1']):.4f}" if history.get("dev_f1") else ""
        lines.append(f"{stage}: {len(history['epoch'])} epochs, loss {history['loss'][-1]:.3f} at the end{best}")
    return "Training curves. " + "; ".join(lines) + "."


_WIDE = 200
"""The range of times, slowest to fastest, from which on only powers of ten are labeled."""
_NOTE = "Memory: most held beyond what the process had before loading. Load: from the file to the first answer."
_SHORT, _LONG = 26, 48
"""Letters of names of which two stand side by side above a drawing, and of the longest that is shown whole."""
_MARK = {"linestyle": "none", "markersize": 6.8, "markeredgewidth": 1.8, "zorder": 3}


def speed_table(speeds: Sequence[Speed], note: str = "") -> Table:
    """One line per net and runtime; latencies are of the smallest batch."""
    batch = speeds[0].latency_batch
    latencies = f"p50 ms, batch {batch}", f"p95 ms, batch {batch}"
    headings = ("model", "runtime", "threads", *latencies, "best images/s", "memory MB", "load ms")
    cells = tuple(_cells(speed.figures()) for speed in speeds)
    return Table(headings=headings, rows=cells, note=f"{_NOTE} {note}".rstrip())


def _cells(figures: dict[str, Any]) -> tuple[str, ...]:
    memory = "-" if figures["peak_bytes"] is None else f"{figures['peak_bytes'] / 1e6:.1f}"
    return (
        figures["model"],
        f"{figures['runtime']} {figures['precision']}",
        str(figures["threads"]),
        f"{figures['p50_ms']:.3f}",
        f"{figures['p95_ms']:.3f}",
        f"{figures['images_per_s']:,.0f} (batch {figures['best_batch']})",
        memory,
        f"{figures['load_ms']:,.0f}",
    )


def speed_drawing(speeds: Sequence[Speed], name: str = "speed") -> Drawing:
    """Latency of the smallest batch: a mark at the median, a line from there to the 95th percentile."""
    looks = _looks(list(dict.fromkeys(speed.model for speed in speeds)))
    places = list(dict.fromkeys(_place(speed) for speed in speeds))
    threads = {place.rpartition(", ")[2] for place in places}
    shared = f", {threads.pop()}" if len(threads) == 1 else ""  # said once, it leaves the marks more room
    with canvas(1.1 + 0.5 * len(places) + 0.12 * len(looks)) as (figure, axes):
        for index, (model, (ink, marker, face)) in enumerate(looks.items()):
            own = [speed for speed in speeds if speed.model == model]
            aside = (index + 0.5) / len(looks) - 0.5  # so that lines do not hide each other
            heights = [places.index(_place(speed)) + 0.6 * aside for speed in own]
            median, slow = ([speed.percentile_ms(percent) for speed in own] for percent in (50, 95))
            axes.hlines(heights, median, slow, color=ink, linewidth=1.2)
            axes.plot(median, heights, marker=marker, color=ink, markerfacecolor=face, label=_shortened(model), **_MARK)
        xlabel = f"milliseconds, batch {speeds[0].latency_batch}{shared}"
        axes.set(xscale="log", xlabel=xlabel, yticks=range(len(places)))
        axes.set_yticklabels([place.removesuffix(shared) for place in places])
        axes.set_ylim(len(places) - 0.5, -0.5)
        _ticks(axes)
        quiet(axes, "x")
        columns = 2 if max(map(len, looks)) <= _SHORT else 1
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns)
        caption = "Left is faster. A mark is the median call, its line ends at the 95th percentile."
        return drawn(figure, name, _speed_alt(speeds), caption)


def _shortened(name: str) -> str:
    """The end of a long name, which tells nets apart better than where they lie."""
    return name if len(name) <= _LONG else f"...{name[-_LONG:]}"


def _ticks(axes: Axes) -> None:
    """A label at 1, 2 and 5 of each power of ten, at the powers alone over several, and none between."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < _WIDE else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place(speed: Speed) -> str:
    return f"{speed.runtime} {speed.precision}, {speed.threads} thread{'s' if speed.threads > 1 else ''}"


def _looks(models: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """{model: ink, marker, filling}; one Before and one After look as everywhere."""
    known = {"before": (color("before"), "s", "none"), "after": (color("after"), "D", color("after"))}
    roles = [model.partition(".")[0] for model in models]
    inks = [color(HUES[index % len(HUES)]) for index in range(len(models))]
    others = [(ink, MARKERS[index % len(MARKERS)], ink) for index, ink in enumerate(inks)]
    return {
        model: known[role] if role in known and roles.count(role) == 1 else other
        for model, role, other in zip(models, roles, others, strict=True)
    }


def _speed_alt(speeds: Sequence[Speed]) -> str:
    lines = (f"{speed.model} in {_place(speed)}: {speed.percentile_ms(50):.3f} ms" for speed in speeds)
    return f"Median latency, batch {speeds[0].latency_batch}. " + "; ".join(lines) + "."
