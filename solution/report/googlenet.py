"""Structured against unstructured pruning of a GoogLeNet on 100 classes: what a team published beside what we measured.

The team's nets saw CIFAR-100; of other pictures, errors compare within a table only. Its count of "20 % fewer
parameters" is wrong: a fifth of the channels is over a third of the parameters.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from solution.contracts import Row
from solution.report.run_folder import Run
from solution.report.spread import mean, mean_count
from solution.report.tables import Table

RECIPE = "googlenet_cifar100"
"""What the names of its recipes begin with."""

PUBLISHED = (
    ("published: base", "6.4 M", "25", "-", "-", "22.96", "6.19", "58.66", "15.74", "27.395", "12.64", "-"),
    ("published: unstructured", "6.4 M", "25", "-", "-", "27.5", "6.61", "58.66", "15.6", "26.788", "12.64", "-"),
    ("published: structured, 20 %", "4.09 M", "16", "-", "-", "25.85", "6.91", "46.98", "16.7", "31.761", "10.79", "-"),
)
HEADINGS = ("net", "parameters", "MB", "MB packed", "MACs", "top-1 error, %", "top-5 error, %", "memory MB",
            "ms per image", "CPU ms", "CUDA ms", "minutes")  # fmt: skip


def googlenet_table(runs: Sequence[Run]) -> Table:
    """One line per published net and per step; mean ± sample standard deviation over seeds."""
    lines = [_line(rows) for rows in zip(*(run.rows for run in runs), strict=True)]
    seeds = ", ".join(str(run.seed) for run in runs)
    hardware = ", ".join(dict.fromkeys(row.hardware for run in runs for row in run.rows))
    note = (
        "ms per image: latency of one image in PyTorch eager, all nets of a run in turns; CPU ms: its processor time, "
        "all threads; memory: most that a fresh process held for the net and one image. int8 is simulated where "
        f"quality is measured, so it has no times here. Seeds {seeds}; {hardware}"
    )
    return Table(headings=HEADINGS, rows=(*PUBLISHED, *lines), note=note)


def _line(rows: Sequence[Row]) -> tuple[str, ...]:
    def some(value: Callable[[Row], float | None], form: str = "{:.2f}") -> str:
        return mean([value(row) for row in rows], form)

    return (
        rows[0].step,
        mean_count([row.params for row in rows]),
        some(lambda row: row.bytes / 1e6),
        some(lambda row: row.packed_bytes and row.packed_bytes / 1e6),
        mean_count([row.macs for row in rows]),
        some(lambda row: _error(row, "accuracy")),
        some(lambda row: _error(row, "top5")),
        some(lambda row: row.memory_bytes and row.memory_bytes / 1e6),
        some(lambda row: row.latency_ms.get("eager")),
        some(lambda row: row.cpu_ms),
        some(lambda row: row.latency_ms.get("cuda")),
        some(lambda row: row.seconds / 60, "{:.1f}"),
    )


def _error(row: Row, name: str) -> float | None:
    """In percent."""
    return 100 * (1 - row.quality[name]) if name in row.quality else None


def googlenet_findings(runs: Sequence[Run]) -> list[str]:
    """What the rows say to the questions that the published table leaves open; means over seeds."""
    return list(_findings({rows[0].step: rows for rows in zip(*(run.rows for run in runs), strict=True)}))


def _findings(rows: dict[str, Sequence[Row]]) -> Iterator[str]:
    def of(step: str, value: Callable[[Row], float]) -> float:
        return statistics.mean(value(row) for row in rows[step])

    def points(step: str, other: str) -> str:
        return f"{of(step, lambda row: _error(row, 'accuracy')) - of(other, lambda row: _error(row, 'accuracy')):+.2f}"

    gone = 1 - of("pruned", lambda row: row.params) / of("base", lambda row: row.params)
    yield f"A fifth of the channels is {100 * gone:.1f} % of the parameters (published: 36 %)."
    if all("eager" in row.latency_ms for step in ("pruned", "longer") for row in rows[step]):
        faster = of("longer", lambda row: row.latency_ms["eager"]) / of("pruned", lambda row: row.latency_ms["eager"])
        yield f"The pruned net answers {faster:.2f} times as fast as the base (published: 0.94 times)."
    yield (
        f"Top-1 error of the pruned net against a base of as many epochs: {points('pruned', 'longer')} points "
        f"(published: +2.89, with fewer epochs for the base); against a net of its own shape from scratch: "
        f"{points('pruned', 'scratch')}; of the sparse net: {points('sparse', 'longer')}."
    )
    yield (
        f"Static int8: {points('int8', 'longer')} points on the base, {points('pruned_int8', 'pruned')} on the pruned "
        "net (published: failed)."
    )
