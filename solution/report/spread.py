"""Several runs of one recipe, one per seed, and one switch at a time: means and spreads as tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from solution.contracts import InputError, Row
from solution.report.tables import QUALITY, Table
from solution.run_folder import machines, read_rows

Column = tuple[str, Callable[[Sequence[Row]], str]]


def spread(runs: Sequence[Sequence[Row]]) -> list[Table]:
    """What every step costs and is worth, what was measured of it, and its exported files: at most three tables.

    One line per step; mean ± sample standard deviation over runs. Columns that no row fills are left out. Raises
    `InputError` when the runs are not of the same steps.
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
    return [*tables, *filter(None, [shipped(runs)])]


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
    lines = [line for rows in steps for line in _forms(rows, names)]
    headings = ("step", "form", "bytes", *(QUALITY.get(name, name) for name in names), "ms of one image", "memory MB")
    if not any("memory_bytes" in file for rows in steps for row in rows for file in row.exported.values()):
        headings, lines = headings[:-1], [line[:-1] for line in lines]  # rows of before it was measured
    return Table(
        headings=headings,
        rows=tuple(lines),
        caption="Every form that can be shipped: its file, and what that file does.",
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
    for path in sorted(folder.glob("*/rows.json")) + sorted(folder.glob("*/seed*/rows.json")):
        rows = read_rows(path.parent)
        if rows:
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
