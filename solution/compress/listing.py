"""Tables of plans, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the cells of `rows` below each other: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}" for place, (cell, width) in cells).rstrip()
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]


def savings(saves: Mapping[str, tuple[int, int]]) -> list[str]:
    """A line for each currency: before, after, and the change in percent."""
    return [f"{name}: {before:,} -> {after:,} ({after / before - 1:+.1%})" for name, (before, after) in saves.items()]


def left_alone(left: Mapping[str, str]) -> list[str]:
    """A line for each layer that a step leaves as it is, with the reason."""
    return [f"{path}: left as it is, {reason}" for path, reason in left.items()]
