"""Several runs of one recipe, one per seed: mean and spread of every step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from solution.contracts import InputError, Row


def spread_table(runs: Sequence[Sequence[Row]]) -> str:
    """A markdown table with a line per step: MACs, parameters, mean ± sample standard deviation of F1 and score.

    Raises `InputError` when the runs are not of the same steps.
    """
    names = [[row.step for row in rows] for rows in runs]
    if not runs or any(steps != names[0] for steps in names):
        raise InputError(f"these runs are not of one recipe; their steps are {names}")
    seeds = ", ".join(str(rows[0].seed) for rows in runs)
    lines = [
        "| step | MACs | parameters | bytes | macro F1 | accuracy | score | minutes |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(rows) for rows in zip(*runs, strict=True)),
        f"\n{len(runs)} run(s), seeds {seeds}; {runs[0][0].hardware}; commit {runs[0][0].commit}",
    ]
    return "\n".join(lines)


def _line(rows: Sequence[Row]) -> str:
    f1, accuracy = ([row.quality[name] for row in rows] for name in ("f1", "accuracy"))
    scores = [row.score for row in rows if row.score is not None]
    first, minutes = rows[0], statistics.mean(row.seconds for row in rows) / 60
    cells = [f"{first.macs:,}", f"{first.params:,}", f"{first.bytes:,}"]
    cells += [_mean(f1), _mean(accuracy), _mean(scores) if scores else "-"]
    return f"| {first.step} | {' | '.join(cells)} | {minutes:.1f} |"


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"
