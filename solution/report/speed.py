"""What `solution.evaluate.speed` measured, as a table and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from solution.evaluate.speed import Speed
from solution.report.style import HUES, MARKERS, Drawing, canvas, color, drawn, quiet
from solution.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE = 1000
"""The range of times, slowest to fastest, from which on only powers of ten are labeled."""
_NOTE = "Memory: most held beyond what the process had before loading. Load: from the file to the first answer."
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
    with canvas(1.1 + 0.5 * len(places) + 0.12 * len(looks)) as (figure, axes):
        for index, (model, (ink, marker, face)) in enumerate(looks.items()):
            own = [speed for speed in speeds if speed.model == model]
            aside = (index + 0.5) / len(looks) - 0.5  # so that lines do not hide each other
            heights = [places.index(_place(speed)) + 0.6 * aside for speed in own]
            median, slow = ([speed.percentile_ms(percent) for speed in own] for percent in (50, 95))
            axes.hlines(heights, median, slow, color=ink, linewidth=1.2)
            axes.plot(median, heights, marker=marker, color=ink, markerfacecolor=face, label=model, **_MARK)
        axes.set(xscale="log", xlabel=f"milliseconds, batch {speeds[0].latency_batch}", yticks=range(len(places)))
        axes.set_yticklabels(places)
        axes.set_ylim(len(places) - 0.5, -0.5)
        _ticks(axes)
        quiet(axes, "x")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        caption = "Left is faster. A mark is the median call, its line ends at the 95th percentile."
        return drawn(figure, name, _alt(speeds), caption)


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


def _alt(speeds: Sequence[Speed]) -> str:
    lines = (f"{speed.model} in {_place(speed)}: {speed.percentile_ms(50):.3f} ms" for speed in speeds)
    return f"Median latency, batch {speeds[0].latency_batch}. " + "; ".join(lines) + "."
