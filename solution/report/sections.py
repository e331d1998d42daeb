"""What a page is made of: sections with tables, drawings, photos and text; and what a recipe adds of its own."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from solution.report.plots import Series
from solution.report.style import Drawing
from solution.report.tables import Table
from solution.run_folder import Run
from solution.settings import gathered


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo and the labels that nets gave it. `source` is a data URI, `side` its pixels, `name` its place in the
    data set."""

    source: str
    side: int
    alt: str
    lines: tuple[str, ...]
    name: str


@dataclass(frozen=True, kw_only=True)
class Block:
    """Text as it was written: a command, a plan, settings. `folded` shows its title alone until it is opened."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page, in the order of its fields; what it does not have is not shown.

    half  on a wide screen two such sections stand side by side
    """

    id: str
    title: str
    texts: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    photos: tuple[Photo, ...] = ()
    blocks: tuple[Block, ...] = ()
    half: bool = False


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What runs of one recipe show beyond cost and quality of their steps: what `Recipe.report` returns.

    title      of the section; "" means the recipe and its data
    tables     they take the place of the table of steps; none leave it
    texts      sentences that follow from the rows
    drawings   {file name: drawing}
    commands   that make the runs again; none mean `run RECIPE` with the settings that differ
    steps      {stage: what it does, in a few words}
    reference  nets of others, for the plot of cost against quality
    """

    title: str = ""
    tables: tuple[Table, ...] = ()
    texts: tuple[str, ...] = ()
    drawings: Mapping[str, Drawing] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    steps: Mapping[str, str] = field(default_factory=dict)
    reference: tuple[Series, ...] = ()

    def markdown(self) -> str:
        """Tables, sentences and step names; drawings are files of their own."""
        words = " ".join(self.texts)
        return "\n\n".join(filter(None, [*(table.markdown() for table in self.tables), words, self.legend()]))

    def legend(self) -> str:
        """Every step with what it does, in one line; "" without any."""
        return "Steps: " + "; ".join(f"`{name}`: {words}" for name, words in self.steps.items()) if self.steps else ""


Report: TypeAlias = Callable[[Mapping[str, Run], str], Findings]
"""`Recipe.report`: {name: run} of the seeds of one recipe, or of the cells of a family, and what keeps the names of
drawings apart on one page -> what they show. Without runs: what any run would be compared with."""

Overview: TypeAlias = Callable[[Mapping[str, Mapping[str, Run]]], Findings]
"""{group: {name: run}} of all groups of one reference system -> what they show together."""


@dataclass(frozen=True, kw_only=True)
class RecipeInfo:
    """What is known of a recipe by its name.

    defaults  {key: value} of its settings today
    together  its runs are cells of a family: those of one folder are shown together
    overview  shows all groups of its reference system in one place
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    report: Report | None = None
    together: bool = False
    overview: Overview | None = None

    def findings(self, runs: Mapping[str, Run], slug: str = "") -> Findings:
        """What the recipe's own report shows, with the epochs that were trained; nothing when it has none."""
        if self.report is None:
            return Findings()
        found, settings = self.report(runs, slug), next(iter(runs.values())).settings if runs else {}
        epochs = {stage: settings.get(f"{stage}.epochs") for stage in found.steps}
        steps = {
            stage: words if epochs[stage] is None else re.sub(r"\d+ epochs", f"{epochs[stage]} epochs", words, count=1)
            for stage, words in found.steps.items()
        }
        return dataclasses.replace(found, steps=steps)


Lookup: TypeAlias = Callable[[str], RecipeInfo]
"""A recipe's name -> what is known of it; an empty `RecipeInfo` for a recipe of elsewhere."""


def command(run: Run, defaults: Mapping[str, Any]) -> str:
    """The command that makes this run again. `defaults` are the recipe's own settings today.

    Settings that the recipe no longer has follow as a comment; the commit in the rows still has them.
    """
    words = ["python", "-m", "solution", "run", run.recipe]
    if run.settings.get("data.path") is not None:
        words += ["--data", run.settings["data.path"]]
    words += ["--seed", str(run.seed)]
    others = {key: value for key, value in run.settings.items() if key != "data.path"}
    plain = json.loads(json.dumps(dict(defaults)))
    changes = {key: value for key, value in others.items() if key in plain and plain[key] != value}
    for key, value in gathered(changes, defaults).items():
        words += ["--set", f"{key}={_spelled(value)}"]
    gone = [f"{key}={_spelled(value)}" for key, value in others.items() if key not in defaults]
    return shlex.join(words) + (f"  # at its commit also {' '.join(gone)}" if defaults and gone else "")


def _spelled(value: Any) -> str:
    """A value as --set takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value)
