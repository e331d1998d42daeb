"""One self-contained HTML page of a run: no network, no script; for a phone and a projector, in light and in dark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from solution.contracts import Row
from solution.report.ablation import ablation_table, read_ablation
from solution.report.curves import training_curves
from solution.report.front import PUBLISHED, Point, Series, pareto
from solution.report.sections import Block, Section
from solution.report.spread import shipped, spread
from solution.report.style import css_variables
from solution.report.tables import Table, compared
from solution.report.template import CSS, PAGE
from solution.run_folder import ROLES, Defaults, Run, command, flat

if TYPE_CHECKING:
    from solution.report.predictions import Look


def page(runs: Sequence[Run], look: Look | None, defaults: Defaults) -> str:
    """The whole page of one run, or of the same recipe with several seeds.

    look      the compared models on the val split, of the first run; None leaves out what needs photos
    defaults  says which settings a command must name
    """
    from jinja2 import Environment

    first = runs[0]
    data = look.data if look else first.data()
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    return made.render(
        title=f"{first.recipe} on {data}",
        subtitle=_subtitle(runs),
        facts=_facts(*(figures(runs, role) for role in ROLES)),
        sections=_sections(runs, look, defaults),
        css=css_variables() + CSS,
    ).lstrip()


def figures(runs: Sequence[Run], role: str) -> dict[str, Any]:
    """The figures of "before" or "after": the mean over runs of each that all of them have."""
    rows = [run.row(role) for run in runs]
    tables = [{**flat(row), **row.quality} for row in rows]
    known = {name: [table.get(name) for table in tables] for name in tables[0]}
    return {
        name: statistics.mean(values)
        for name, values in known.items()
        if all(isinstance(value, int | float) for value in values)
    }


def _subtitle(runs: Sequence[Run]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    word = "seed" if len(runs) == 1 else "mean of seeds"
    return f"{word.capitalize()} {seeds}; quality on the val split, which only judges; {runs[0].rows[0].hardware}"


def _facts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str]]:
    """The headline: change of cost in percent, quality and score from Before to After."""
    facts = []
    for name, label in (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes on disk")):
        change = after[name] / before[name] - 1
        facts.append({"name": label, "main": f"{change:+.1%}", "detail": f"{before[name]:,.0f} → {after[name]:,.0f}"})
    for name, label in (("f1", "macro F1"), ("score", "score, lower is better")):
        if name in before and name in after:
            detail = f"from {before[name]:.4f}, {after[name] - before[name]:+.4f}"
            facts.append({"name": label, "main": f"{after[name]:.4f}", "detail": detail})
    return facts


def _sections(runs: Sequence[Run], look: Look | None, defaults: Defaults) -> list[Section]:
    histories = runs[0].histories()
    switches = read_ablation(runs[0].folder / "ablation")
    sections = [_compared(runs), _steps(runs)]
    if histories:
        sections.append(Section(id="training", title="Training", drawings=(training_curves(histories),), half=True))
    if any(row.quality.get("f1") for row in _rows(runs)):
        sections.append(_cost_and_quality(runs))
    if look is not None:
        from solution.report.diagnostics import diagnostics

        sections += diagnostics(look)
    if switches:
        sections.append(Section(id="ablation", title="Ablation", tables=(ablation_table(switches),)))
    return [*sections, _made(runs, defaults, look)]


def _rows(runs: Sequence[Run]) -> list[Row]:
    return [row for run in runs for row in run.rows]


def _compared(runs: Sequence[Run]) -> Section:
    table = compared({role: figures(runs, role) for role in ROLES})
    before, after = runs[0].compared
    notes = [f"Before is the stage {before}, After the stage {after}."] if runs[0].compared != ROLES else []
    if len(runs) > 1:
        notes.append("Means over the seeds; the spread is in the next table.")
    headings, caption = ("figure", *table.headings[1:]), "Cost, and quality on the val split"
    shown = Table(headings=headings, rows=table.rows, caption=caption, note=" ".join(notes))
    return Section(id="compared", title="Before and After", tables=(shown,))


def _steps(runs: Sequence[Run]) -> Section:
    rows = [run.rows for run in runs]
    table, forms = spread(rows), shipped(rows)
    caption = "One row per step; mean ± standard deviation over seeds" if len(runs) > 1 else "One row per step"
    shown = [replace(table, caption=caption), *([replace(forms, caption="As shipped")] if forms else [])]
    return Section(id="steps", title="Step by step", tables=tuple(shown))


def _cost_and_quality(runs: Sequence[Run]) -> Section:
    series = [PUBLISHED, *(_series(runs, role) for role in ROLES)]
    others = [row for run in runs for row in run.rows if row.step not in run.compared and "f1" in row.quality]
    if others:
        points = tuple(Point(macs=row.macs, f1=row.quality["f1"], name=row.step) for row in others)
        series.append(Series(name="other steps", points=points))
    text = (
        "The published results were measured on the competition's private photos: their MACs compare, "
        "their F1 shows where the teams stood."
    )
    return Section(id="front", title="Cost and quality", texts=(text,), drawings=(pareto(series),), half=True)


def _series(runs: Sequence[Run], role: str) -> Series:
    rows = [run.row(role) for run in runs]
    points = tuple(Point(macs=row.macs, f1=row.quality["f1"]) for row in rows if "f1" in row.quality)
    return Series(name=role.capitalize(), points=points, look=role)


def _made(runs: Sequence[Run], defaults: Defaults, look: Look | None) -> Section:
    first = runs[0]
    commands = "\n".join(command(run, defaults(run.recipe)) for run in runs)
    blocks = [Block(title="Commands", text=commands)]
    blocks += [Block(title=f"Plan of {name}", text=text, folded=True) for name, text in first.plans().items()]
    if first.settings:
        settings = "\n".join(f"{key} = {value}" for key, value in first.settings.items())
        blocks.append(Block(title=f"All {len(first.settings)} settings", text=settings, folded=True))
    texts = () if look else ("Confusion, worst images and features need the photos: add --data PATH to the command.",)
    return Section(id="made", title="How it was made", texts=texts, tables=(_origins(runs),), blocks=tuple(blocks))


def _origins(runs: Sequence[Run]) -> Table:
    lines = []
    for run in runs:
        stated = (", ".join(dict.fromkeys(getattr(row, name) for row in run.rows)) for name in ("commit", "hardware"))
        lines.append((str(run.seed), f"{sum(row.seconds for row in run.rows) / 60:.1f}", *stated))
    return Table(headings=("seed", "minutes", "commit", "hardware"), rows=tuple(lines), caption="Seeds and hardware")
