"""What every net of a run costs and is worth: size, quality and latency, one line each, three panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from solution.report.style import HUES, Drawing, canvas, color, drawn, quiet


@dataclass(frozen=True, kw_only=True)
class CostLine:
    """One net in one form. megabytes: of the file as stored; packed: of the packed file, if any; ms: of one image."""

    name: str
    megabytes: float
    quality: float
    packed: float | None = None
    ms: float | None = None


def costs_drawing(lines: Sequence[CostLine], quality: str, name: str) -> Drawing:
    """`lines` from top to bottom; `quality` says what their quality is."""
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
            axes.set_xlim(0, 1.06 * max(axes.dataLim.x1, 1e-9))  # whole marks at the edge, too
            axes.set_yticklabels([one.name for one in lines])
            quiet(axes, "both")
        said = "; ".join(f"{one.name} {one.megabytes:.2f} MB, {one.quality:.4g}" for one in lines)
        caption = "Nets without a time only simulate integers. The packed file says exactly what the checkpoint says."
        return drawn(figure, name, f"Size as stored and {quality}. {said}.", caption)
