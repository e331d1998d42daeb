"""Rows as tables: markdown, aligned text, a table that grows while a recipe runs, Before and After."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from solution.contracts import Row

QUALITY: Mapping[str, str] = MappingProxyType(
    {
        "f1": "macro F1",
        "map": "mAP50-95",
        "accuracy": "accuracy",
        "map50": "mAP50",
        "top5": "top-5 accuracy",
        "train_map": "mAP50-95, train",
    }
)
"""What the figures of `Row.quality` are called in tables, the main ones first; others keep their names."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text; the first column names the row, the others are figures.

    caption  what the table shows, in a sentence
    note     where its figures come from, in a sentence or two
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    note: str = ""

    def markdown(self) -> str:
        """The caption, the table, and its note as a paragraph below."""
        lines = [f"| {' | '.join(cells)} |" for cells in (self.headings, *self.rows)]
        lines.insert(1, "|" + "---|" * len(self.headings))
        return "\n".join([*([f"*{self.caption}*\n"] if self.caption else []), *lines,
                          *([f"\n{self.note}"] if self.note else [])])  # fmt: skip

    def text(self) -> str:
        """The table in aligned columns, the first one to the left."""
        grid = (self.headings, *self.rows)
        widths = [max(len(cells[column]) for cells in grid) for column in range(len(self.headings))]
        lines = []
        for cells in grid:
            padded = [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
            lines.append("  ".join([f"{cells[0]:<{widths[0]}}", *padded]).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join(lines)


def main_quality(rows: Sequence[Row]) -> str | None:
    """The name of the figure of quality that comes first for these rows: macro F1, else mAP50-95, ...; None without."""
    names = list(dict.fromkeys(name for row in rows for name in row.quality))
    return next((name for name in QUALITY if name in names), names[0] if names else None)


def growing(rows: Sequence[Row]) -> str:
    """The rows so far as aligned text: cost, quality, score where it is counted, minutes."""
    known = [name for name in QUALITY if any(name in row.quality for row in rows)]
    scored, sparse = (any(getattr(row, name) for row in rows) for name in ("score", "sparsity"))
    headings = ["step", "MACs", "params", "KB", *(QUALITY[name].replace("macro ", "") for name in known)]
    headings += [*(["zeros, %"] if sparse else []), *(["score"] if scored else []), "min"]
    lines = []
    for row in rows:
        cells = [row.step, f"{row.macs:,}", f"{row.params:,}", f"{row.bytes / 1e3:.1f}"]
        cells += [_number(row.quality.get(name)) for name in known]
        cells += [f"{row.sparsity:.1f}"] if sparse else []
        cells += [_number(row.score)] if scored else []
        lines.append((*cells, f"{row.seconds / 60:.1f}"))
    return Table(headings=tuple(headings), rows=tuple(lines)).text()


def _number(value: float | None, form: str = "{:.4f}") -> str:
    return "-" if value is None else form.format(value)


_COSTS = (("macs", "MACs"), ("params", "parameters"), ("bytes", "checkpoint, bytes"))
_COUNT = "{:,.0f}"


def compared(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Cost and quality of {"before": figures, "after": figures}, one line per figure; with both, their difference.

    figures  as in `Row`; quality on their own level: {"macs": ..., "f1": ...}
    """
    forms = {**dict.fromkeys((name for name, _ in _COSTS), _COUNT)}
    labels = {**dict(_COSTS), **QUALITY, "score": "score (lower is better)"}
    lines = []
    for key, label in labels.items():
        values, form = [figures.get(key) for figures in models.values()], forms.get(key, "{:.4f}")
        if any(value is not None for value in values):
            cells = [_number(value, form) for value in values]
            lines.append((label, *cells, *_difference(form, values)))
    difference = ["Difference"] if len(models) == 2 else []
    headings = ("", *(name.capitalize() for name in models), *difference)
    return Table(headings=headings, rows=tuple(lines), caption="Cost, and quality on the val split.")


def _difference(form: str, values: list[float | None]) -> list[str]:
    if len(values) != 2:
        return []
    before, after = values
    if before is None or after is None:
        return [""]
    sign = "+" if after > before else "-" if after < before else ""
    share = f" ({after / before - 1:+.1%})" if form == _COUNT and before else ""
    return [f"{sign}{form.format(abs(after - before))}{share}"]


def forms(models: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Each form of each net as its file is and runs: bytes, ms of one image, quality, memory. None with one form only.

    figures  as in `compared`, with "packed_bytes", "latency_ms" and "exported" as in `Row`
    """
    quality = next((name for name in QUALITY if any(name in figures for figures in models.values())), None)
    listed = {role: dict(_forms(figures, quality)) for role, figures in models.items()}
    names = list(dict.fromkeys(name for own in listed.values() for name in own))
    if len(names) < 2:
        return None
    rows = [(name, role.capitalize(), *own[name]) for name in names for role, own in listed.items() if name in own]
    headings = ("form", "net", "bytes", "ms of one image", QUALITY[quality] if quality else "quality", "memory MB")
    filled = [at for at in range(len(headings)) if at < 3 or any(cells[at] != "-" for cells in rows)]
    return Table(
        headings=tuple(headings[at] for at in filled),
        rows=tuple(tuple(cells[at] for at in filled) for cells in rows),
        caption="Every form that can be shipped: its file, and what that file does.",
    )  # fmt: skip


def _forms(figures: Mapping[str, Any], quality: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, cells) of the checkpoint, the packed file and every exported file."""
    times, exported = figures.get("latency_ms", {}), figures.get("exported", {})

    def cells(num_bytes: float | None, ms: float | None, judged: float | None, memory: float | None) -> tuple[str, ...]:
        held = None if memory is None else memory / 1e6
        return _number(num_bytes, _COUNT), _number(ms, "{:.3g}"), _number(judged), _number(held, "{:.1f}")

    if figures.get("bytes") is not None:
        own = figures.get(quality) if quality else None
        yield "checkpoint, PyTorch eager", cells(figures["bytes"], times.get("eager"), own, figures.get("memory_bytes"))
    if figures.get("packed_bytes") is not None:
        yield "packed", cells(figures["packed_bytes"], None, None, None)
    for form, file in exported.items():
        judged = file.get(quality) if quality else None
        yield form, cells(file.get("bytes"), times.get(form), judged, file.get("memory_bytes"))
    for form, ms in times.items():
        if form not in exported and form != "eager":
            yield form, cells(None, ms, None, None)


def side_by_side(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of `compared` and `forms` as aligned text."""
    return "\n\n".join(table.text() for table in (compared(models), forms(models)) if table)
