"""Rows as tables: markdown, aligned text, a table that grows while a recipe runs, Before and After; of several runs,
one per seed, and of one switch at a time: means and spreads.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from solution.contracts import InputError, Row
from solution.run_folder import folders_of_runs, machines, read_rows
from solution.text import columns

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

    def html(self) -> str:
        """The table as notebooks show it, with its caption and note."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.headings)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in self.rows)
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

    def text(self) -> str:
        """The table in aligned columns, the first one to the left."""
        lines = columns((self.headings, *self.rows))
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join(lines)


def main_quality(rows: Sequence[Row]) -> str | None:
    """The name of the figure of quality that comes first for these rows: macro F1, else mAP50-95, ...; None without."""
    names = list(dict.fromkeys(name for row in rows for name in row.quality))
    return next((name for name in QUALITY if name in names), names[0] if names else None)


class Rows(list[Row]):
    """Rows of one run, which notebooks show as a table."""

    def _repr_html_(self) -> str:
        return costs(self).html()


def growing(rows: Sequence[Row]) -> str:
    """The rows so far as aligned text."""
    return costs(rows).text()


def costs(rows: Sequence[Row]) -> Table:
    """The rows so far: cost, quality, score where it is counted, minutes."""
    known = [name for name in QUALITY if any(name in row.quality for row in rows)]
    scored, sparse = (any(getattr(row, name) for row in rows) for name in ("score", "sparsity"))
    chips = any(row.ram for row in rows)
    headings = ["step", "MACs", "params", "KB", *(["RAM KB"] if chips else [])]
    headings += [*(QUALITY[name].replace("macro ", "") for name in known)]
    headings += [*(["zeros, %"] if sparse else []), *(["score"] if scored else []), "min"]
    lines = []
    for row in rows:
        cells = [row.step, f"{row.macs:,}", f"{row.params:,}", f"{row.bytes / 1e3:.1f}"]
        cells += [_number(row.ram and row.ram / 1e3, "{:.1f}")] if chips else []
        cells += [_number(row.quality.get(name)) for name in known]
        cells += [f"{row.sparsity:.1f}"] if sparse else []
        cells += [_number(row.score)] if scored else []
        lines.append((*cells, f"{row.seconds / 60:.1f}"))
    return Table(headings=tuple(headings), rows=tuple(lines))


def _number(value: float | None, form: str = "{:.4f}") -> str:
    return "-" if value is None else form.format(value)


_COSTS = {"macs": "MACs", "params": "parameters", "bytes": "checkpoint, bytes", "ram": "memory on a chip, bytes"}
_COUNT = "{:,.0f}"


def compared(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Cost and quality of {"before": figures, "after": figures}, one line per figure; with both, their difference.

    figures  as in `Row`; quality on their own level: {"macs": ..., "f1": ...}
    """
    forms = dict.fromkeys(_COSTS, _COUNT)
    labels = {**_COSTS, **QUALITY, "score": "score (lower is better)"}
    if not all(map(is_of_checkpoint, models.values())):
        labels["bytes"] = "file, bytes"
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
        note=_unpaid({role.capitalize(): figures.get("latency_ms", {}) for role, figures in models.items()}),
    )  # fmt: skip


def _unpaid(latency_ms: Mapping[str, Mapping[str, float]]) -> str:
    """A sentence for each net and runtime in which int8 takes longer than fp32. {net: {form: ms of one image}}."""
    found = []
    for net, times in latency_ms.items():
        for form, ms in times.items():
            runtime, _, precision = form.partition(" ")
            plain = times.get(runtime)
            if precision.startswith("int8") and plain and ms > plain:
                found.append(
                    f"{net} in {runtime}: int8 does not pay there, it is {ms / plain - 1:.0%} slower than fp32."
                )
    return " ".join(found)


def is_of_checkpoint(figures: Mapping[str, Any]) -> bool:
    """Whether bytes and quality of a row are its checkpoint's. `shrink` notes those of the file that ships."""
    shipped = [file for file in figures.get("exported", {}).values() if file.get("bytes") is not None]
    return all(file["bytes"] != figures.get("bytes") for file in shipped)


def _forms(figures: Mapping[str, Any], quality: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, cells) of the checkpoint, the packed file and every exported file."""
    times, exported = figures.get("latency_ms", {}), figures.get("exported", {})

    def cells(num_bytes: float | None, ms: float | None, judged: float | None, memory: float | None) -> tuple[str, ...]:
        held = None if memory is None else memory / 1e6
        return _number(num_bytes, _COUNT), _number(ms, "{:.3g}"), _number(judged), _number(held, "{:.1f}")

    if figures.get("bytes") is not None and is_of_checkpoint(figures):
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


Column = tuple[str, Callable[[Sequence[Row]], str]]


def spread(runs: Sequence[Sequence[Row]], files: bool = True) -> list[Table]:
    """What every step costs and is worth, what was measured of it, and its exported files: at most three tables.

    One line per step; mean ± sample standard deviation over runs. Columns that no row fills are left out; so is the
    table of files without `files`. Raises `InputError` when the runs are not of the same steps.
    """
    names = [[row.step for row in rows] for rows in runs]
    if not runs or not names[0] or any(steps != names[0] for steps in names):
        raise InputError(f"these runs are not of one recipe; their steps are {names}")
    every = [row for rows in runs for row in rows]
    seeds = ", ".join(str(rows[0].seed) for rows in runs)
    commits = ", ".join(dict.fromkeys(row.commit for row in every))
    note = f"{len(runs)} run(s), seeds {seeds}; {machines(every)}; commit {commits}"
    spreads = " Mean ± sample standard deviation over seeds." if len(runs) > 1 else ""
    tables = [_steps(runs, _columns(every), f"What every step costs, and its quality on val.{spreads}", note)]
    if measured := _measured(every):
        tables.append(_steps(runs, measured, "What was measured of every step: files, times, memory.", ""))
    return [*tables, *filter(None, [shipped(runs) if files else None])]


def spread_table(runs: Sequence[Sequence[Row]]) -> str:
    """The tables of `spread` in markdown."""
    return "\n\n".join(table.markdown() for table in spread(runs))


def _steps(runs: Sequence[Sequence[Row]], columns: Sequence[Column], caption: str, note: str) -> Table:
    lines = [(rows[0].step, *(cell(rows) for _, cell in columns)) for rows in zip(*runs, strict=True)]
    return Table(headings=("step", *(name for name, _ in columns)), rows=tuple(lines), caption=caption, note=note)


def _columns(rows: Sequence[Row]) -> list[Column]:
    columns = [_counts("MACs", "macs"), _counts("parameters", "params"), _counts("bytes", "bytes")]
    if any(row.sparsity for row in rows):
        columns.append(("zeros, %", lambda some: mean([row.sparsity for row in some], "{:.1f}")))
    for name in dict.fromkeys(name for row in rows for name in row.quality):
        columns.append((QUALITY.get(name, name), _quality(name)))
    if any(row.score is not None for row in rows):
        columns.append(("score", lambda some: mean([row.score for row in some])))
    columns.append(("minutes", lambda some: f"{statistics.mean(row.seconds for row in some) / 60:.1f}"))
    return columns


def _measured(rows: Sequence[Row]) -> list[Column]:
    """Columns that take time to measure; none where exported files have a table that holds them."""
    if any(row.exported for row in rows):
        return []
    columns: list[Column] = []
    if any(row.packed_bytes for row in rows):
        columns.append(("bytes packed", lambda some: mean([row.packed_bytes for row in some], "{:,.0f}")))
    for runtime in dict.fromkeys(name for row in rows for name in row.latency_ms):
        columns.append((f"ms, {runtime}", _latency(runtime)))
    if any(row.cpu_ms for row in rows):
        columns.append(("ms, processor", lambda some: mean([row.cpu_ms for row in some], "{:.3g}")))
    if any(row.memory_bytes for row in rows):
        columns.append(("memory MB", lambda some: _memory([row.memory_bytes for row in some])))
    return columns


def shipped(runs: Sequence[Sequence[Row]]) -> Table | None:
    """A line per form of each exported step, as its file is and runs: bytes, quality on val, ms of one image.

    None when nothing was exported.
    """
    steps = [rows for rows in zip(*runs, strict=True) if any(row.exported for row in rows)]
    if not steps:
        return None
    names = tuple(dict.fromkeys(name for rows in steps for row in rows for name in row.quality))
    lines = [line for rows in steps for line in _file_rows(rows, names)]
    times = {rows[0].step: {form: statistics.mean(row.latency_ms[form] for row in rows)
                            for form in rows[0].latency_ms if all(form in row.latency_ms for row in rows)}
             for rows in steps}  # fmt: skip
    headings = ("step", "form", "bytes", *(QUALITY.get(name, name) for name in names), "ms of one image", "memory MB")
    if not any("memory_bytes" in file for rows in steps for row in rows for file in row.exported.values()):
        headings, lines = headings[:-1], [line[:-1] for line in lines]  # rows of before it was measured
    return Table(
        headings=headings,
        rows=tuple(lines),
        caption="Every form that can be shipped: its file, and what that file does.",
        note="Quality is the exported file's own, run by that runtime; all forms were timed in turns, one thread. "
        f"{_unpaid(times)}".rstrip(),
    )


def _file_rows(rows: Sequence[Row], names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The checkpoint in PyTorch, the packed file, then every runtime. names: of figures of quality."""
    step = rows[0].step
    judged = [_quality(name)(rows) for name in names]
    own = (_latency("eager")(rows), _memory([row.memory_bytes for row in rows]))
    if all(is_of_checkpoint(vars(row)) for row in rows):
        yield (step, "checkpoint, eager", mean_count([row.bytes for row in rows]), *judged, *own)
        yield (step, "packed", mean([row.packed_bytes for row in rows], "{:,.0f}"), *("-" for _ in (*names, *own)))
    for form in dict.fromkeys(form for row in rows for form in row.exported):
        files = [row.exported.get(form, {}) for row in rows]
        found = [mean([file.get(name) for file in files]) for name in names]
        held, num_bytes = ([file.get(name) for file in files] for name in ("memory_bytes", "bytes"))
        yield (step, form, mean(num_bytes, "{:,.0f}"), *found, _latency(form)(rows), _memory(held))


def _memory(held: Sequence[float | None]) -> str:
    return mean([None if num_bytes is None else num_bytes / 1e6 for num_bytes in held], "{:.1f}")


def _counts(heading: str, field: str) -> Column:
    return heading, lambda rows: mean_count([getattr(row, field) for row in rows])


def _quality(name: str) -> Callable[[Sequence[Row]], str]:
    return lambda rows: mean([row.quality.get(name) for row in rows])


def _latency(runtime: str) -> Callable[[Sequence[Row]], str]:
    return lambda rows: mean([row.latency_ms.get(runtime) for row in rows], "{:.3g}")


def mean_count(values: Sequence[int]) -> str:
    """A whole number; the mean, rounded, where runs differ."""
    return f"{round(statistics.mean(values)):,}"


def mean(values: Sequence[float | None], form: str = "{:.4f}") -> str:
    """ "0.7200 ± 0.0200": the mean and the sample standard deviation of the values there are; "-" without any."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {form.format(statistics.stdev(known))}" if len(known) > 1 else ""
    return form.format(statistics.mean(known)) + deviation


BASE = "base"
"""The switch of an ablation that all others are compared with."""

Switches = Mapping[str, Sequence[Sequence[Row]]]
"""{switch: the rows of each of its runs}; of every run the last row counts."""


def read_ablation(folder: Path) -> dict[str, list[list[Row]]]:
    """{switch: its runs} in `folder`, base first; empty without runs.

    Runs are ``<switch>/rows.json`` or, with several seeds, ``<switch>/seed<N>/rows.json``.
    """
    found: dict[str, list[list[Row]]] = {}
    for path in folders_of_runs(folder, "*") + folders_of_runs(folder, "*/seed*"):
        if rows := read_rows(path):
            found.setdefault(path.relative_to(folder).parts[0], []).append(rows)
    if found and BASE not in found:
        raise InputError(f"{folder} has no switch called {BASE!r} to compare {', '.join(found)} with")
    return {name: found[name] for name in sorted(found, key=lambda name: (name != BASE, name))}


def ablation_table(switches: Switches) -> Table:
    """One line per switch. "helps" and "hurts" are differences beyond the spread of seeds that both have."""
    lines = [_switch(name, runs, switches[BASE]) for name, runs in switches.items()]
    hardware = ", ".join(dict.fromkeys(rows[-1].hardware for runs in switches.values() for rows in runs))
    note = (
        "Score: lower is better. A difference counts when it is larger than the standard deviations of base and switch "
        f"together; with one seed nothing is decided. {hardware}"
    )
    headings = ("switch", "runs", "MACs", "macro F1", "score", "score against base", "verdict", "minutes")
    caption = "One switch at a time: what each method adds to the same base, with the same seeds and a small budget."
    return Table(headings=headings, rows=tuple(lines), caption=caption, note=note)


def _switch(name: str, runs: Sequence[Sequence[Row]], base: Sequence[Sequence[Row]]) -> tuple[str, ...]:
    rows = [run[-1] for run in runs]
    own, theirs = ([run[-1].score for run in some if run[-1].score is not None] for some in (runs, base))
    difference = statistics.mean(own) - statistics.mean(theirs) if own and theirs and name != BASE else None
    return (
        name,
        str(len(runs)),
        mean_count([row.macs for row in rows]),
        mean([row.quality.get("f1") for row in rows]),
        mean(own),
        "" if difference is None else f"{difference:+.4f}",
        "" if difference is None else _verdict(difference, own, theirs),
        f"{statistics.mean(sum(row.seconds for row in run) for run in runs) / 60:.1f}",
    )


def _verdict(difference: float, own: Sequence[float], theirs: Sequence[float]) -> str:
    if len(own) < 2 or len(theirs) < 2:
        return "one seed"
    noise = (statistics.variance(own) + statistics.variance(theirs)) ** 0.5
    if abs(difference) <= noise:
        return "no difference"
    return "helps" if difference < 0 else "hurts"
