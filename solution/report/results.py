"""`docs/results.md`: every committed row. The same rows always give the same text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from solution.contracts import InputError
from solution.report.sections import Findings, Lookup, Overview, command
from solution.report.style import Drawing
from solution.report.tables import ablation_table, read_ablation, spread
from solution.run_folder import Run, folders_of_runs, read_run

INTRODUCTION = """\
# Results

This page shows every measured row that the project publishes. It is made by `python -m solution report --docs` from the
files in `docs/rows`; do not edit it. Quality is measured on the val split, which no step may look at (dev decides, val
judges); ± is the sample standard deviation over seeds. MACs are multiply-accumulates of one image; ms is the median
time of one image on one thread. Words are explained in [glossary.md](glossary.md)."""

_ABLATION = "ablation"

Groups = Mapping[str, Mapping[str, Run]]
"""{group: {name: run}}: seeds of one recipe, or cells of a family on one data set."""


def results(rows: Path, lookup: Lookup) -> str:
    """The text of `docs/results.md` for the folder `rows`; `lookup` knows the recipes."""
    groups = grouped(rows, lookup)
    if not groups:
        raise InputError(f"{rows} holds no rows.json: copy recipe.json and rows.json of finished runs there")
    parts = [_section(findings.title, findings, "") for findings in _overviews(groups, lookup)]
    for name, runs in groups.items():
        first = next(iter(runs.values()))
        own = lookup(first.recipe).findings(runs, _slug(name))
        parts.append(_section(own.title or f"{first.recipe} on {name}", own, _commands(runs, own, lookup), runs))
    for folder in sorted(path for path in rows.rglob(_ABLATION) if path.is_dir()):
        table = ablation_table(read_ablation(folder))
        parts.append(f"## One switch at a time: {folder.parent.relative_to(rows)}\n\n{table.markdown()}")
    titles = [part.partition("\n")[0].removeprefix("## ") for part in parts]
    contents = "\n".join(f"- [{title}](#{_anchor(title)})" for title in titles)
    return "\n\n".join([INTRODUCTION, contents, *parts]) + "\n"


def pictures(rows: Path, lookup: Lookup) -> dict[str, Drawing]:
    """{name of its file beside `results.md`: drawing}."""
    groups = grouped(rows, lookup)
    found: dict[str, Drawing] = {}
    for findings in _overviews(groups, lookup):
        found |= findings.drawings
    for name, runs in groups.items():
        found |= lookup(next(iter(runs.values())).recipe).findings(runs, _slug(name)).drawings
    return found


def grouped(rows: Path, lookup: Lookup) -> dict[str, dict[str, Run]]:
    """{group: {name: run}}, single recipes first.

    The folders ``seed<N>`` or ``fold<N>`` of one folder are one group, and so are the cells of a family; any other run
    is its own.
    """
    alone: dict[str, dict[str, Run]] = {}
    together: dict[str, dict[str, Run]] = {}
    for path in sorted(folders_of_runs(rows), key=_natural):
        folder = path.relative_to(rows)
        if _ABLATION in folder.parts:
            continue
        run = read_run(path)
        family = lookup(run.recipe).together
        group = folder.parent if family or re.fullmatch(r"(seed|fold)\d+", folder.name) else folder
        (together if family else alone).setdefault(str(group), {})[folder.name] = run
    return alone | {name: runs for name, runs in together.items() if name not in alone}


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts seed2 before seed10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _overviews(groups: Groups, lookup: Lookup) -> list[Findings]:
    """What each reference system shows of all its groups together."""
    systems: dict[Overview, dict[str, Mapping[str, Run]]] = {}
    for name, runs in groups.items():
        if (overview := lookup(next(iter(runs.values())).recipe).overview) is not None:
            systems.setdefault(overview, {})[name] = runs
    return [overview(own) for overview, own in systems.items()]


def _section(title: str, own: Findings, commands: str, runs: Mapping[str, Run] | None = None) -> str:
    tables = own.tables or (tuple(spread([run.rows for run in runs.values()])) if runs else ())
    pictures = [f"![{drawing.alt}]({file})" for file, drawing in own.drawings.items()]
    block = f"```\n{commands}\n```" if commands else ""
    return "\n\n".join(filter(None, [f"## {title}", replace(own, tables=tables).markdown(), *pictures, block]))


def _commands(runs: Mapping[str, Run], own: Findings, lookup: Lookup) -> str:
    """Those that make the runs again; of a family one that makes all cells, which differ in their model."""
    first = next(iter(runs.values()))
    info, listed = lookup(first.recipe), list(runs.values())
    if info.together:
        settings = {key: value for key, value in first.settings.items() if not key.startswith("model.")}
        listed = [replace(first, settings=settings)]
    return "\n".join(own.commands or (command(run, info.defaults) for run in listed))


def _slug(folder: str) -> str:
    return folder.replace("/", "-")


def _anchor(title: str) -> str:
    """As GitHub makes it from a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
