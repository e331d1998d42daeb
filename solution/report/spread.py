"""Several runs of one recipe, one per seed: mean and spread of every step."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from solution.contracts import InputError, Row
from solution.report.tables import Table
from solution.run_folder import machines

QUALITY = {"f1": "macro F1", "accuracy": "accuracy", "top5": "top-5 accuracy"}
"""What the figures of `Row.quality` are called in tables; others keep their names."""

Column = tuple[str, Callable[[Sequence[Row]], str]]


def spread_table(runs: Sequence[Sequence[Row]]) -> str:
    """The tables of `spread` and `shipped` in markdown."""
    return "\n\n".join(table.markdown() for table in (spread(runs), shipped(runs)) if table)


def spread(runs: Sequence[Sequence[Row]]) -> Table:
    """A line per step: cost, mean ± sample standard deviation of quality and score, minutes.

    Columns that no row fills are left out, and so is what `shipped` tells. Raises `InputError` when the runs are not of
    the same steps.
    """
    names = [[row.step for row in rows] for rows in runs]
    if not runs or not names[0] or any(steps != names[0] for steps in names):
        raise InputError(f"these runs are not of one recipe; their steps are {names}")
    every = [row for rows in runs for row in rows]
    columns = _columns(every)
    seeds = ", ".join(str(rows[0].seed) for rows in runs)
    commits = ", ".join(dict.fromkeys(row.commit for row in every))
    return Table(
        headings=("step", *(heading for heading, _ in columns)),
        rows=tuple(
            (rows[0].step, *(cell(rows) for _, cell in columns)) for rows in zip(*runs, strict=True)
        ),
        note=f"{len(runs)} run(s), seeds {seeds}; {machines(every)}; commit {commits}",
    )  # fmt: skip


def _columns(rows: Sequence[Row]) -> list[Column]:
    """The columns that at least one row fills."""
    columns = [_counts("MACs", "macs"), _counts("parameters", "params"), _counts("bytes", "bytes")]
    alone = not any(row.exported for row in rows)
    if alone and any(row.packed_bytes for row in rows):
        columns.append(("bytes packed", lambda some: mean([row.packed_bytes for row in some], "{:,.0f}")))
    if any(row.sparsity for row in rows):
        columns.append(("zeros, %", lambda some: mean([row.sparsity for row in some], "{:.1f}")))
    for name in dict.fromkeys(name for row in rows for name in row.quality):
        columns.append((QUALITY.get(name, name), _quality(name)))
    if any(row.score is not None for row in rows):
        columns.append(("score", lambda some: mean([row.score for row in some])))
    for runtime in dict.fromkeys(name for row in rows for name in row.latency_ms if alone):
        columns.append((f"ms, {runtime}", _latency(runtime)))
    if alone and any(row.cpu_ms for row in rows):
        columns.append(("ms, processor", lambda some: mean([row.cpu_ms for row in some], "{:.3g}")))
    if alone and any(row.memory_bytes for row in rows):
        columns.append(("memory MB", lambda some: _memory([row.memory_bytes for row in some])))
    columns.append(("minutes", lambda some: f"{statistics.mean(row.seconds for row in some) / 60:.1f}"))
    return columns


def shipped(runs: Sequence[Sequence[Row]]) -> Table | None:
    """A line per form of each exported step, as its file is and runs: bytes, quality on val, ms of one image.

    None when nothing was exported. `spread` says of which runs.
    """
    steps = [rows for rows in zip(*runs, strict=True) if any(row.exported for row in rows)]
    if not steps:
        return None
    names = tuple(dict.fromkeys(name for rows in steps for row in rows for name in row.quality))
    lines = [line for rows in steps for line in _forms(rows, names)]
    headings = ("step", "form", "bytes", *(QUALITY.get(name, name) for name in names), "ms of one image", "memory MB")
    if not any("memory_bytes" in said for rows in steps for row in rows for said in row.exported.values()):
        headings, lines = headings[:-1], [line[:-1] for line in lines]  # rows of before it was measured
    return Table(
        headings=headings,
        rows=tuple(lines),
        note="Quality is the exported file's own, run by that runtime; all forms were timed in turns, one thread.",
    )


def _forms(rows: Sequence[Row], names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The checkpoint in PyTorch, the packed file, then every runtime. names: of figures of quality."""
    step = rows[0].step
    judged = [_quality(name)(rows) for name in names]
    own = (_latency("eager")(rows), _memory([row.memory_bytes for row in rows]))
    yield (step, "checkpoint, eager", mean_count([row.bytes for row in rows]), *judged, *own)
    yield (step, "packed", mean([row.packed_bytes for row in rows], "{:,.0f}"), *("-" for _ in (*names, *own)))
    for form in dict.fromkeys(form for row in rows for form in row.exported):
        said = [row.exported.get(form, {}) for row in rows]
        found = [mean([own.get(name) for own in said]) for name in names]
        held, num_bytes = ([own.get(name) for own in said] for name in ("memory_bytes", "bytes"))
        yield (step, form, mean(num_bytes, "{:,.0f}"), *found, _latency(form)(rows), _memory(held))


def _memory(held: Sequence[int | None]) -> str:
    return mean([_megabytes(num_bytes) for num_bytes in held], "{:.1f}")


def _megabytes(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / 1e6


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
