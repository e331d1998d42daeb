"""Bits of a weight against what they cost: size of the packed file and quality, for several nets, as table and drawing.

A net's rows are those of a run whose first compared stage is the float net; the others are called after their bits,
such as "bits4".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solution.contracts import Row
from solution.report.style import DASHES, HUES, MARKERS, Drawing, canvas, colour, drawn, quiet
from solution.report.tables import Table

PREFIX = "bits"
_HEADINGS = ("net", "bits", "bytes packed", "bytes a parameter", "times smaller", "macro F1", "points lost")
_NOTE = "Times smaller: than the float net's checkpoint. Points lost: of macro F1 on val, in percent, against that net."

Nets = Mapping[str, tuple[Row, Sequence[Row]]]
"""{name: (the float net, the same net in fewer bits)}."""


def bits_table(nets: Nets, note: str = "") -> Table:
    """One line per net and number of bits, the float net first."""
    rows = [(name, *_cells(row, base)) for name, (base, fewer) in nets.items() for row in (base, *fewer)]
    return Table(headings=_HEADINGS, rows=tuple(rows), note=f"{_NOTE} {note}".rstrip())


def _cells(row: Row, base: Row) -> tuple[str, ...]:
    return (
        "32, float" if row is base else _bits(row),
        f"{row.packed_bytes:,}",
        f"{row.packed_bytes / base.params:.3f}",
        f"{_smaller(row, base):.1f}",
        f"{row.quality['f1']:.4f}",
        "" if row is base else f"{_lost(row, base):+.2f}",
    )


def bits_drawing(nets: Nets, name: str = "bits") -> Drawing:
    """How many times smaller the packed file is, against points of macro F1 lost; every mark is named by its bits."""
    with canvas(3.6) as (figure, axes):
        axes.axhline(0, color=colour("faint"), linewidth=0.8)
        for index, (net, (base, fewer)) in enumerate(nets.items()):
            ink, marker = colour(HUES[index % len(HUES)]), MARKERS[index % len(MARKERS)]
            smaller, lost = ([measure(row, base) for row in fewer] for measure in (_smaller, _lost))
            axes.plot(smaller, lost, color=ink, marker=marker, linestyle=DASHES[index % len(DASHES)], label=net)
            aside = {"ha": "left", "va": "bottom"} if index % 2 else {"ha": "right", "va": "top"}
            for row, x, y in zip(fewer, smaller, lost, strict=True):
                offset = (5, 3) if index % 2 else (-5, -4)
                axes.annotate(_bits(row), (x, y), offset, textcoords="offset points", fontsize=9, **aside)
        axes.set_xscale("log", base=2)
        axes.set_yscale("symlog", linthresh=1, linscale=0.6)
        axes.set(xlabel="times smaller than the float net's file", ylabel="points of macro F1 lost")
        axes.margins(0.12)
        axes.invert_yaxis()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        quiet(axes, "both")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        caption = "Up and right is better. Numbers are bits of a weight; beyond one point the scale is logarithmic."
        return drawn(figure, name, _told(nets), caption)


def _bits(row: Row) -> str:
    return row.step.removeprefix(PREFIX)


def _smaller(row: Row, base: Row) -> float:
    return base.bytes / row.packed_bytes


def _lost(row: Row, base: Row) -> float:
    return 100 * (base.quality["f1"] - row.quality["f1"])


def _told(nets: Nets) -> str:
    said = (
        f"{net} in {_bits(row)} bits: {_smaller(row, base):.1f} times smaller, {_lost(row, base):.2f} points lost"
        for net, (base, fewer) in nets.items()
        for row in fewer
    )
    return f"Size against quality. {'; '.join(said)}."
