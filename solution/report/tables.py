"""Rows for the eye: cells that become markdown or HTML, a table that grows line by line, two models side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from solution.contracts import Row
from solution.run_folder import one_level


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text; the first column names the row, the others are figures.

    caption  what the table shows
    note     where its figures come from, in a sentence or two
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    note: str = ""

    def markdown(self) -> str:
        """The table, and its note as a paragraph below."""
        lines = [f"| {' | '.join(cells)} |" for cells in (self.headings, *self.rows)]
        lines.insert(1, "|" + "---|" * len(self.headings))
        return "\n".join([*lines, *([f"\n{self.note}"] if self.note else [])])


COLUMNS = (("step", 16), ("MACs", 11), ("params", 9), ("KB", 8), ("F1", 7), ("accuracy", 9), ("score", 8), ("min", 7))


def heading() -> str:
    """The names of the columns that `line` fills."""
    return " ".join(f"{name:<{width}}" if name == "step" else f"{name:>{width}}" for name, width in COLUMNS)


def line(row: Row) -> str:
    """One row of the growing table."""
    cells = (
        row.step,
        f"{row.macs:,}",
        f"{row.params:,}",
        f"{row.bytes / 1e3:.1f}",
        _fraction(row.quality.get("f1")),
        _fraction(row.quality.get("accuracy")),
        _fraction(row.score),
        f"{row.seconds / 60:.1f}",
    )
    return " ".join(
        f"{cell:<{width}}" if name == "step" else f"{cell:>{width}}"
        for cell, (name, width) in zip(cells, COLUMNS, strict=True)
    )


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


FIGURES = (
    ("macs", "MACs (competition's count)", "{:,.0f}"),
    ("macs_dispatched", "MACs (dispatched)", "{:,.0f}"),
    ("params", "parameters", "{:,.0f}"),
    ("bytes", "file, bytes", "{:,.0f}"),
    ("packed_bytes", "packed file, bytes", "{:,.0f}"),
    ("f1", "macro F1", "{:.4f}"),
    ("accuracy", "accuracy", "{:.4f}"),
    ("score", "score (lower is better)", "{:.4f}"),
)
_QUALITY = "{:.4f}"
_WORDS = {"f1": "macro F1", "memory_bytes": "memory held, bytes,"}


def compared(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """{"before": figures, "after": figures} as one line per figure; with both, a column says the difference.

    figures  as in `Row`, quality on their own level: {"macs": ..., "f1": ..., "latency_ms": {"openvino": ...}}
    """
    difference = ["Difference"] if len(models) == 2 else []
    told = {name: one_level(figures) for name, figures in models.items()}
    lines = []
    for key, label, form in (*FIGURES, *_of_runtimes(told)):
        values = [figures.get(key) for figures in told.values()]
        if any(value is not None for value in values):
            cells = ["-" if value is None else form.format(value) for value in values]
            lines.append((label, *cells, *_difference(form, values)))
    return Table(headings=("", *(name.capitalize() for name in models), *difference), rows=tuple(lines))


def _of_runtimes(told: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Key, label and form of what is said of single runtimes: milliseconds, and figures of the exported files."""
    for key in dict.fromkeys(key for figures in told.values() for key in figures):
        field, _, rest = key.partition(".")
        runtime, _, figure = rest.rpartition(".")
        if field == "latency_ms":
            yield key, f"ms of one image, {rest}", "{:.3g}"
        if field == "exported":
            form = "{:,.0f}" if figure.endswith("bytes") else _QUALITY
            yield key, f"{_WORDS.get(figure, figure)} of the {runtime} file", form


def side_by_side(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of `compared` as aligned text."""
    table = compared(models)
    widths = (max(25, *(len(cells[0]) for cells in table.rows)), *(13 for _ in models), 18)
    lines = [_aligned(cells, widths) for cells in (table.headings, *table.rows)]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _difference(form: str, values: list[float | None]) -> list[str]:
    if len(values) != 2:
        return []
    before, after = values
    if before is None or after is None:
        return [""]
    sign = "+" if after > before else "-" if after < before else ""
    if form == _QUALITY:
        return [sign + form.format(abs(after - before))]
    return [f"{sign}{form.format(abs(after - before))} ({after / before - 1:+.1%})"]


def _aligned(cells: tuple[str, ...], widths: tuple[int, ...]) -> str:
    first, *rest = cells
    padded = (f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=False))
    return f"{first:<{widths[0]}}{''.join(padded)}".rstrip()
