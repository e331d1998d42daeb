"""`docs/results.md`: every committed row, published beside measured. The same rows always give the same text."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from solution.contracts import InputError, Row
from solution.evaluate.score import Scorer
from solution.report.ablation import ablation_table, read_ablation
from solution.report.bits import RECIPE as BITS
from solution.report.bits import bits_command, bits_drawing, bits_table, nets_of
from solution.report.front import PUBLISHED, Point, Series, pareto
from solution.report.grid import epochs_drawing, grid_table, is_cell, verdict
from solution.report.published import AFTER, BEFORE, RESULTS, TOLERANCE, UNITS, PublishedScore
from solution.report.spread import mean, mean_count, spread_table
from solution.report.style import Drawing
from solution.report.systems import repeats, told
from solution.report.tables import Table
from solution.run_folder import ROLES, Defaults, Run, command, machines, read_run

PICTURE, BITS_PICTURE = "front.svg", "bits.svg"
"""The names of pictures beside `results.md`."""

INTRODUCTION = """\
# Results

Made by `python -m solution report --docs` from the rows in `docs/rows`; do not edit. Quality is measured on the val
split, which no step may look at; ± is the sample standard deviation over seeds; score: lower is better."""

_ABLATION = "ablation"


def results(rows: Path, defaults: Defaults) -> str:
    """The text of `docs/results.md` for the folder `rows`; `defaults` gives a recipe's settings today."""
    groups = grouped(rows)
    if not groups:
        raise InputError(f"{rows} holds no rows.json: copy recipe.json and rows.json of finished runs there")
    parts = [INTRODUCTION, _published(groups), f"![{picture(rows).alt}]({PICTURE})"]
    cells = _grids(groups)
    alone = {name: runs for name, runs in groups.items() if not is_cell(runs[0]) and runs[0].recipe != BITS}
    parts += [_group(name, runs, defaults) for name, runs in alone.items()]
    parts += [_grid(name, runs, defaults) for name, runs in cells.items()]
    parts += _bits(_bits_runs(groups))
    for folder in sorted(path for path in rows.rglob(_ABLATION) if path.is_dir()):
        table = ablation_table(read_ablation(folder))
        parts.append(f"## One switch at a time: {folder.parent.relative_to(rows)}\n\n{table.markdown()}")
    parts.append(_formula())
    return "\n\n".join(parts) + "\n"


def pictures(rows: Path) -> dict[str, Drawing]:
    """{name of its file beside `results.md`: drawing}."""
    grids = {name: runs for name, runs in _grids(grouped(rows)).items() if _has_histories(runs)}
    found = {PICTURE: picture(rows), **{_file(name): epochs_drawing(runs, _slug(name)) for name, runs in grids.items()}}
    for name, runs in grouped(rows).items():
        if (said := told(runs, _slug(name))) is not None:
            found |= said.drawings
    if bits := _bits_runs(grouped(rows)):
        found[BITS_PICTURE] = bits_drawing(nets_of(bits))
    return found


def _grids(groups: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, Run]]:
    """{folder of a family's data set: {cell: its run}}; of several seeds the first is told."""
    found: dict[str, dict[str, Run]] = {}
    for name, runs in groups.items():
        if is_cell(runs[0]):
            folder, _, cell = name.rpartition("/")
            found.setdefault(folder, {})[cell] = runs[0]
    return found


def _bits_runs(groups: Mapping[str, Sequence[Run]]) -> dict[str, Run]:
    """{net: its run in ever fewer bits}."""
    return {Path(name).name: runs[0] for name, runs in groups.items() if runs[0].recipe == BITS}


def _bits(runs: Mapping[str, Run]) -> list[str]:
    """All nets in ever fewer bits: one table, one plot."""
    if not runs:
        return []
    nets = nets_of(runs)
    said = "\n".join(bits_command(run) for run in runs.values())
    seeds = ", ".join(sorted({str(run.seed) for run in runs.values()}))
    note = f"One run a net, seed {seeds}; {machines(row for run in runs.values() for row in run.rows)}."
    table = bits_table(nets, note).markdown()
    return ["## Bits of a weight", table, f"![{bits_drawing(nets).alt}]({BITS_PICTURE})", f"```\n{said}\n```"]


def _has_histories(runs: Mapping[str, Run]) -> bool:
    return any(run.histories() for run in runs.values())


def _slug(folder: str) -> str:
    return folder.replace("/", "-")


def _file(folder: str) -> str:
    return f"epochs-{_slug(folder)}.svg"


def _grid(folder: str, runs: Mapping[str, Run], defaults: Defaults) -> str:
    """A family on one data set: techniques, verdict, accuracy against epoch."""
    first = next(iter(runs.values()))
    own = {key: value for key, value in first.settings.items() if not key.startswith("model.")}
    said = command(replace(first, settings=own), defaults(first.recipe))
    parts = [f"## {first.recipe} on {folder}", grid_table(runs).markdown(), verdict(runs).markdown()]
    if _has_histories(runs):
        parts.append(f"![{epochs_drawing(runs, _slug(folder)).alt}]({_file(folder)})")
    return "\n\n".join([*parts, f"```\n{said}\n```"])


def picture(rows: Path) -> Drawing:
    """Before and After of every group of the competition, means over seeds, among the published results."""
    pairs = {name: runs for name, runs in grouped(rows).items() if _competes(runs[0])}
    series = [Series(name=name, points=_points(runs), joined=True) for name, runs in pairs.items()]
    return pareto([PUBLISHED, *series])


def _competes(run: Run) -> bool:
    return not is_cell(run) and run.recipe != BITS and not repeats(run) and "f1" in run.row("after").quality


def _points(runs: Sequence[Run]) -> tuple[Point, ...]:
    points = []
    for role in ROLES:
        rows = _rows(runs, role)
        macs, f1 = (
            statistics.mean(values) for values in ([row.macs for row in rows], [row.quality["f1"] for row in rows])
        )
        points.append(Point(macs=macs, f1=f1, name=role.capitalize()))
    before, after = points
    together = abs(before.macs / after.macs - 1) < 0.05 and abs(before.f1 - after.f1) < 0.005
    return (after,) if together else (before, after)  # two marks and two words in one place cannot be read


def grouped(rows: Path) -> dict[str, list[Run]]:
    """{name: runs}: the folders ``seed<N>`` or ``fold<N>`` of one folder are one group, any other run is its own."""
    groups: dict[str, list[Run]] = {}
    for path in sorted(rows.rglob("rows.json"), key=_natural):
        folder = path.parent.relative_to(rows)
        if _ABLATION not in folder.parts:
            group = folder.parent if re.fullmatch(r"(seed|fold)\d+", folder.name) else folder
            groups.setdefault(str(group), []).append(read_run(path.parent))
    return groups


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts seed2 before seed10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _group(name: str, runs: Sequence[Run], defaults: Defaults) -> str:
    commands = "\n".join(command(run, defaults(run.recipe)) for run in runs)
    own = told(runs, _slug(name))
    texts = [spread_table([run.rows for run in runs])] if own is None else list(own.texts)
    if own is not None:
        texts += [f"![{drawing.alt}]({file})" for file, drawing in own.drawings.items()]
    return "\n\n".join([f"## {runs[0].recipe} on {name}", *texts, f"```\n{commands}\n```"])


def _published(groups: Mapping[str, Sequence[Run]]) -> str:
    """Before and After as published, beside every measured pair of the same two nets."""
    pairs = {name: runs for name, runs in groups.items() if _same_nets(runs)}
    headings = ("", "Before, published", *(f"Before, {name}" for name in pairs))
    headings += ("After, published", *(f"After, {name}" for name in pairs))
    lines = []
    for label, said, measured in (
        ("MACs", lambda result: f"{result.macs:,}", lambda rows: mean_count([row.macs for row in rows])),
        ("macro F1", lambda result: f"{result.f1:.4f}", lambda rows: mean([row.quality.get("f1") for row in rows])),
        ("score", lambda result: f"{result.score:.4f}", lambda rows: mean([row.score for row in rows])),
    ):
        before, after = ([measured(_rows(runs, role)) for runs in pairs.values()] for role in ROLES)
        lines.append((label, said(BEFORE), *before, said(AFTER), *after))
    note = (
        "Published figures are of the competition's private photos: MACs compare one to one, F1 and score of other "
        "photos do not. "
        f"The published Before score contradicts the published formula, which gives {_score(BEFORE):.4f}."
    )
    table = Table(headings=headings, rows=tuple(lines), note=note)
    return f"## Published and measured\n\nShuffleNet v1, 4,8,4 units before and 2,5,2 after.\n\n{table.markdown()}"


def _same_nets(runs: Sequence[Run]) -> bool:
    return [runs[0].row(role).macs for role in ROLES] == [BEFORE.macs, AFTER.macs]


def _rows(runs: Sequence[Run], role: str) -> list[Row]:
    return [run.row(role) for run in runs]


def _score(result: PublishedScore) -> float:
    return Scorer()(result.macs, result.f1)


def _formula() -> str:
    """Every published score beside the one that our formula gives."""
    lines = []
    for result in (*RESULTS, BEFORE):
        ours = _score(result)
        fits = "yes" if abs(ours - result.score) <= TOLERANCE else "**no**"
        name = " ".join(filter(None, (UNITS.get(result.macs, ""), result.name)))
        lines.append((name, f"{result.macs:,}", f"{result.f1:.4f}", f"{result.score:.4f}", f"{ours:.5f}", fits))
    headings = ("net", "MACs", "macro F1", "published score", "our formula", f"within {TOLERANCE}")
    return f"## The score's formula\n\n{Table(headings=headings, rows=tuple(lines)).markdown()}"
