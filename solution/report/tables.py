"""Rows for the eye: cells that become markdown or HTML, a table that grows line by line, two models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from solution.contracts import Row


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
    ("f1", "macro F1", "{:.4f}"),
    ("accuracy", "accuracy", "{:.4f}"),
    ("score", "score (lower is better)", "{:.4f}"),
)


def compared(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """{"before": figures, "after": figures} as one line per figure; with both, a column says the difference."""
    difference = ["Difference"] if len(models) == 2 else []
    lines = []
    for key, label, form in FIGURES:
        values = [figures.get(key) for figures in models.values()]
        if any(value is not None for value in values):
            cells = ["-" if value is None else form.format(value) for value in values]
            lines.append((label, *cells, *_difference(key, form, values)))
    return Table(headings=("", *(name.capitalize() for name in models), *difference), rows=tuple(lines))


def side_by_side(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of `compared` as aligned text."""
    table = compared(models)
    widths = (25, *(13 for _ in models), 18)
    lines = [_aligned(cells, widths) for cells in (table.headings, *table.rows)]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _difference(key: str, form: str, values: list[float | None]) -> list[str]:
    if len(values) != 2:
        return []
    before, after = values
    if before is None or after is None:
        return [""]
    sign = "+" if after > before else "-" if after < before else ""
    if key in ("f1", "accuracy", "score"):
        return [sign + form.format(abs(after - before))]
    return [f"{sign}{form.format(abs(after - before))} ({after / before - 1:+.1%})"]


def _aligned(cells: tuple[str, ...], widths: tuple[int, ...]) -> str:
    first, *rest = cells
    padded = (f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=False))
    return f"{first:<{widths[0]}}{''.join(padded)}".rstrip()
