"""`Result`: the one table of a search with its verdict, as text, as HTML in a notebook, as a page, as files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from solution.contracts import InputError, Row
from solution.report.page import page
from solution.report.plots import Point, Series, pareto
from solution.report.sections import Findings, RecipeInfo
from solution.report.style import COLORS, Drawing
from solution.report.tables import Table
from solution.run_folder import PAGE, Run, RunFolder, read_run
from solution.runtime import write_text

NAME, FACTS = "shrink", "shrink.json"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One file: what it costs and what it is worth on val.

    role           "before" (as it came), "chosen" or "runner-up"
    figure         the main figure of `quality`; None without pictures
    interval       95 % confidence interval of `figure`, over the pictures; None where it is not known
    drop           points below the net as it came
    """

    name: str
    role: str
    precision: str
    size: int
    macs: int
    params: int
    bytes: int
    ms: float
    ram: int
    quality: Mapping[str, float] = field(default_factory=dict)
    figure: float | None = None
    interval: tuple[float, float] | None = None
    drop: float | None = None
    drop_interval: tuple[float, float] | None = None

    def row(self, runtime: str, **fields: Any) -> Row:
        """The same as a row of a run."""
        form = runtime if self.precision == "fp32" else f"{runtime} {self.precision}"
        return Row(step=self.name, macs=self.macs, params=self.params, bytes=self.bytes, quality=dict(self.quality),
                   latency_ms={form: round(self.ms, 4)}, exported={form: {"bytes": self.bytes, **self.quality}},
                   **fields)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What a search leaves.

    net       the smaller net, in evaluation mode
    file      its export
    lines     as it came, chosen, runners-up
    passed    whether the chosen file keeps quality on val and all limits
    verdict   that in one line
    points    {"name", "macs", "dev"} of all that was tried
    title     of the figure of quality
    notes     what cannot be known, and why
    """

    net: nn.Module
    file: Path
    out: Path
    lines: tuple[Line, ...]
    passed: bool
    verdict: str
    runtime: str
    title: str
    points: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> Line:
        """The line of the chosen net."""
        return self.lines[1]

    def table(self) -> Table:
        """All lines."""
        return _table(self.facts())

    def facts(self) -> dict[str, Any]:
        """All but the net, ready for `json.dumps`."""
        return {"lines": [dataclasses.asdict(line) for line in self.lines], "passed": self.passed,
                "verdict": self.verdict, "runtime": self.runtime, "title": self.title, "points": list(self.points),
                "notes": list(self.notes), "file": self.file.name}  # fmt: skip

    def __str__(self) -> str:
        return "\n\n".join([self.table().text(), *self.notes, self.verdict])

    def _repr_html_(self) -> str:
        """Table and picture, as notebooks show them."""
        facts = self.facts()
        texts = "".join(f"<p>{escape(text)}</p>" for text in (self.verdict, *self.notes))
        return self.table().html() + texts + _in_notebook(_drawing(facts))


def _table(facts: Mapping[str, Any]) -> Table:
    lines = facts["lines"]
    known = any(line["figure"] is not None for line in lines)
    sided = len({line["size"] for line in lines}) > 1
    headings = ["net", "MACs", "parameters", "bytes", f"ms, {facts['runtime']}", *(["pixels"] if sided else [])]
    headings += [facts["title"], "95 % interval", "change, points"] if known else []
    rows = []
    for line in lines:
        mark = {"chosen": "chosen: ", "before": ""}.get(line["role"], "")
        cells = [mark + line["name"], f"{line['macs']:,}", f"{line['params']:,}", f"{line['bytes']:,}"]
        cells += [f"{line['ms']:.3g}", *([str(line["size"] or "-")] if sided else [])]
        if known:
            cells += [_number(line["figure"]), _interval(line["interval"], "{:.4f}")]
            cells.append("" if line["role"] == "before" or line["drop"] is None else f"{0 - line['drop']:+.2f}")
        rows.append(tuple(cells))
    return Table(headings=tuple(headings), rows=tuple(rows), caption="As it came, chosen, runners-up; judged on val.")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(pair: Sequence[float] | None, form: str) -> str:
    return "-" if pair is None else f"{form.format(pair[0])} to {form.format(pair[1])}"


def _drawing(facts: Mapping[str, Any]) -> Drawing | None:
    """Cost against quality on dev of all that was tried; None without pictures."""
    points = [one for one in facts["points"] if one["dev"] is not None]
    if not points:
        return None
    chosen = facts["lines"][1]["name"].rpartition(",")[0]

    def series(name: str, look: str, some: list[Mapping[str, Any]], joined: bool = False) -> Series:
        marks = tuple(Point(macs=one["macs"], quality=one["dev"]) for one in some)
        return Series(name=name, points=marks, look=look, joined=joined)

    others = [one for one in points[1:] if one["name"] != chosen]
    parts = [series("as it came", "before", points[:1])]
    parts += [series("tried", "other", others, joined=True)] if others else []
    picked = [one for one in points if one["name"] == chosen]
    parts += [series("chosen", "after", picked)] if picked else []
    return pareto(parts, "front", quality=f"{facts['title']} on dev")


def _in_notebook(drawing: Drawing | None) -> str:
    if drawing is None:
        return ""
    light = "".join(f"--{name}:{colors[0]};" for name, colors in COLORS.items())
    return f'<div style="max-width:34em;background:#fff;{light}">{drawing.svg}</div>'


def findings(runs: Mapping[str, Run], _slug: str = "") -> Findings:
    """What the page of a search shows: its table, its verdict, its front."""
    for run in runs.values():
        path = run.folder / FACTS
        if path.is_file():
            try:
                facts = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path} is damaged ({error}): run `shrink` again with --resume") from error
            drawing = _drawing(facts)
            command = run.settings.get("command", "")
            return Findings(
                title="The search",
                tables=(_table(facts),),
                texts=(facts["verdict"], *facts["notes"]),
                drawings={"front.svg": drawing} if drawing else {},
                commands=(command,) if command else (),
            )
    return Findings()


INFO = RecipeInfo(report=findings)
"""What the catalogue knows of searches, which are no recipes but leave rows as these do."""


def write(result: Result, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Everything but the nets: rows, facts, picture, page.

    about  what `recipe.json` notes: seed, settings, data
    """
    folder = RunFolder(path=result.out)
    folder.note({"name": NAME, "before": rows[0].step, "after": rows[1].step, **about})
    folder.write_rows(rows)
    facts = result.facts()
    write_text(result.out / FACTS, json.dumps(facts, indent=1) + "\n")
    if drawing := _drawing(facts):
        write_text(result.out / "front.svg", drawing.file_text())
    write_text(result.out / PAGE, page([read_run(result.out)], None, lambda _name: INFO))
