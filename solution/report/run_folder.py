"""What a run left in its folder, read for telling: rows, settings, histories, plans."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.contracts import InputError, Row
from solution.report.curves import History, read_history
from solution.report.rows import read_rows
from solution.settings import gathered

ROLES = ("before", "after")

Defaults = Callable[[str], Mapping[str, Any]]
"""A recipe's name -> the settings that it has today."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a recipe.

    recipe     the recipe's name; the folder's when it does not say
    settings      {address: value} of every setting, as JSON gives them back
    rows       one per finished stage
    compared   the stages called Before and After
    """

    folder: Path
    recipe: str
    seed: int
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    compared: tuple[str, str]

    def row(self, role: str) -> Row:
        """The row of "before" or "after"."""
        name = self.compared[ROLES.index(role)]
        return next(row for row in self.rows if row.step == name)

    def checkpoints(self) -> dict[str, Path]:
        """{"before": path, "after": path} of those that are there."""
        paths = {role: self.folder / f"{role}.safetensors" for role in ROLES}
        return {role: path for role, path in paths.items() if path.is_file()}

    def histories(self) -> dict[str, History]:
        """{stage: its history}, in the order of the stages; stages that do not train have none."""
        paths = {path.parent.name: path for path in sorted(self.folder.glob("*/history.csv"))}
        order = [row.step for row in self.rows if row.step in paths]
        found = {name: read_history(paths[name]) for name in dict.fromkeys([*order, *paths])}
        return {name: history for name, history in found.items() if history.get("epoch")}

    def plans(self) -> dict[str, str]:
        """{stage: the table of what it cut}."""
        paths = {row.step: self.folder / row.step / "plan.txt" for row in self.rows}
        return {name: path.read_text().rstrip() for name, path in paths.items() if path.is_file()}

    def data(self) -> str:
        """What the data set is called, as far as the folder says."""
        path = self.settings.get("data.path")
        return Path(path).name.split(".")[0] if path else self.folder.resolve().parent.name


def read_run(folder: Path) -> Run:
    """The run in `folder`. `InputError` when it has no rows."""
    rows = read_rows(folder)
    if not rows:
        raise InputError(f"{folder} holds no rows.json with rows: name a folder that `python -m solution run` wrote")
    said = _said(folder / "recipe.json")
    return Run(
        folder=folder,
        recipe=said.get("name", folder.name),
        seed=said.get("seed", rows[0].seed),
        settings=said.get("settings", {}),
        rows=tuple(rows),
        compared=_compared(folder, rows),
    )


def _said(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}); copy it again, or delete it to report the rows alone"
        ) from error


def _compared(folder: Path, rows: Sequence[Row]) -> tuple[str, str]:
    """The stages that the two checkpoints say they are, else those of these names, else the first and the last."""
    names = [row.step for row in rows]
    found = []
    for role, fallback in zip(ROLES, (names[0], names[-1]), strict=True):
        said = _stage(folder / f"{role}.safetensors")
        found.append(next(name for name in (said, role, fallback) if name in names))
    return found[0], found[1]


def _stage(path: Path) -> str | None:
    from solution.checkpoint import read_header

    return read_header(path).recipe.get("stage") if path.is_file() else None


def command(run: Run, defaults: Mapping[str, Any]) -> str:
    """The command that makes this run again. `defaults` are the recipe's own settings today.

    Settings that the recipe no longer has follow as a comment; the commit in the rows still has them.
    """
    words = ["python", "-m", "solution", "run", run.recipe]
    if run.settings.get("data.path") is not None:
        words += ["--data", run.settings["data.path"]]
    words += ["--seed", str(run.seed)]
    others = {key: value for key, value in run.settings.items() if key != "data.path"}
    changes = {key: value for key, value in others.items() if key in defaults and _plain(defaults[key]) != value}
    for key, value in gathered(changes, defaults).items():
        words += ["--set", f"{key}={_spelled(value)}"]
    gone = [f"{key}={_spelled(value)}" for key, value in others.items() if key not in defaults]
    return shlex.join(words) + (f"  # at its commit also {' '.join(gone)}" if defaults and gone else "")


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def _spelled(value: Any) -> str:
    return (
        ",".join(map(str, value)) + ("," if len(value) == 1 else "") if isinstance(value, list | tuple) else str(value)
    )
