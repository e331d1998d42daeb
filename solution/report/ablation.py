"""One switch at a time: what each adds to the same base, with the same seeds and the same small budget.

Runs lie as ``<somewhere>/ablation/<switch>/rows.json`` or, with several seeds, ``.../<switch>/seed<N>/rows.json``; the
switch called "base" is what the others are compared with. Of every run the last row counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from solution.contracts import InputError, Row
from solution.report.spread import mean, mean_count
from solution.report.tables import Table
from solution.run_folder import read_rows

BASE = "base"
HEADINGS = ("switch", "runs", "MACs", "macro F1", "score", "score against base", "verdict", "minutes")


Runs = Sequence[Sequence[Row]]
"""The rows of each run of one switch."""


def read_ablation(folder: Path) -> dict[str, list[list[Row]]]:
    """{switch: its runs} in `folder`, base first; empty without runs."""
    found: dict[str, list[list[Row]]] = {}
    for path in sorted(folder.glob("*/rows.json")) + sorted(folder.glob("*/seed*/rows.json")):
        rows = read_rows(path.parent)
        if rows:
            found.setdefault(path.relative_to(folder).parts[0], []).append(rows)
    if found and BASE not in found:
        raise InputError(f"{folder} has no switch called {BASE!r} to compare {', '.join(found)} with")
    return {name: found[name] for name in sorted(found, key=lambda name: (name != BASE, name))}


def ablation_table(switches: Mapping[str, Runs]) -> Table:
    """One line per switch. "helps" and "hurts" are said of differences beyond the spread of seeds that both have."""
    base = switches[BASE]
    lines = [_line(name, runs, base) for name, runs in switches.items()]
    hardware = ", ".join(dict.fromkeys(rows[-1].hardware for runs in switches.values() for rows in runs))
    note = (
        "Score: lower is better. A difference counts when it is larger than the standard deviations of base and switch "
        f"together; with one seed nothing is decided. {hardware}"
    )
    return Table(headings=HEADINGS, rows=tuple(lines), caption="One switch at a time", note=note)


def _line(name: str, runs: Runs, base: Runs) -> tuple[str, ...]:
    rows = [run[-1] for run in runs]
    own, theirs = _scores(runs), _scores(base)
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


def _scores(runs: Runs) -> list[float]:
    return [run[-1].score for run in runs if run[-1].score is not None]


def _verdict(difference: float, own: Sequence[float], theirs: Sequence[float]) -> str:
    if len(own) < 2 or len(theirs) < 2:
        return "one seed"
    noise = (statistics.variance(own) + statistics.variance(theirs)) ** 0.5
    if abs(difference) <= noise:
        return "no difference"
    return "helps" if difference < 0 else "hurts"
