"""Rows for the eye: a table that grows line by line, and two models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solution.contracts import Row

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


def side_by_side(models: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of {"before": figures, "after": figures}; with both, a column says the difference."""
    columns = [name.capitalize() for name in models]
    widths = (25, *(13 for _ in columns), 18)
    lines = [_aligned(["", *columns, *(["Difference"] if len(models) == 2 else [])], widths)]
    lines.append("-" * len(lines[0]))
    for key, label, form in FIGURES:
        values = [figures.get(key) for figures in models.values()]
        if any(value is not None for value in values):
            cells = ["-" if value is None else form.format(value) for value in values]
            lines.append(_aligned([label, *cells, *_difference(key, form, values)], widths))
    return "\n".join(lines)


def _difference(key: str, form: str, values: list[float | None]) -> list[str]:
    if len(values) != 2 or None in values:
        return []
    before, after = values
    sign = "+" if after > before else "-" if after < before else ""
    if key in ("f1", "accuracy", "score"):
        return [sign + form.format(abs(after - before))]
    return [f"{sign}{form.format(abs(after - before))} ({after / before - 1:+.1%})"]


def _aligned(cells: list[str], widths: tuple[int, ...]) -> str:
    first, *rest = cells
    return f"{first:<{widths[0]}}" + "".join(
        f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=False)
    )
