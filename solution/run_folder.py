"""What a run leaves on disk: the one place that names these files, and writes and reads all but weights.

    recipe.json                          the recipe's name, seed and settings; which stages it compares; data, versions
    rows.json, rows.csv                  one row per finished stage
    before.safetensors, after.safetensors     copies of the two stages that are compared
    <stage>/model.safetensors            the stage's checkpoint; model.packed too when the recipe is thorough
    <stage>/model.onnx, ...              exported forms of Before and After, where the recipe names such
    <stage>/plan.json, plan.txt          what a structural step decided
    <stage>/history.csv                  one line per epoch
    <stage>/training.safetensors         the state to go on from, until the stage is over (`solution.train.resume`)

`RunFolder` is such a folder; `read_run` gives what is in it as one value, `Run`.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import filecmp
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_type_hints

from solution.contracts import InputError, Plan, Recipe, Row
from solution.runtime import commit, write_text, written_whole
from solution.settings import parse, settings_of
from solution.text import printable, safe_name, texts_in

ROLES = ("before", "after")
_LIBRARIES = ("featherweight", "torch", "torchvision", "numpy", "pillow", "opencv-python-headless", "albumentations")
_NOTED = {"name": str, "seed": int, "before": str, "after": str, "settings": dict, "data": dict, "versions": dict}
"""What recipe.json may hold, and of which kind."""
_DECODING = ("pillow", "opencv-python-headless")  # other versions may make other pixels of the same pictures
MODEL, PACKED, HISTORY, STATE = "model.safetensors", "model.packed", "history.csv", "training.safetensors"
RECIPE, ROWS, TABLE, PAGE = "recipe.json", "rows.json", "rows.csv", "report.html"
PLAN, PLAN_TEXT = "plan.json", "plan.txt"

Defaults = Callable[[str], Mapping[str, Any]]
"""A recipe's name -> the settings that it has today."""

History = Mapping[str, Sequence[float]]
"""{"epoch": (1, 2, ...), "loss": ..., "dev_f1": ...}: the columns of a `history.csv`."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The folder of one run, whether it is there yet or not."""

    path: Path

    def stage(self, name: str) -> Path:
        """The folder of the stage called `name`."""
        return self.path / name

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of the stage called `name`."""
        return self.path / name / MODEL

    def packed(self, name: str) -> Path:
        """The packed file of the stage called `name`."""
        return self.path / name / PACKED

    def compared(self, role: str) -> Path:
        """The copy of "before" or "after"."""
        return self.path / f"{role}.safetensors"

    @property
    def is_taken(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / RECIPE).exists()

    def begin(self, recipe: Recipe, data: Mapping[str, Any], log: Callable[[str], None] = print) -> None:
        """Note what runs here, on which data, with which versions; of a run that goes on the first note stays.

        data  what the data set is (`data_facts`). `InputError` when the run was begun with another one
        log   takes which versions were others then
        """
        noted, here = self.description(), versions()
        then = noted.get("versions", {})
        other = [name for name in then if then[name] != here.get(name)]
        if different := _difference(noted.get("data", {}), data, not set(_DECODING).isdisjoint(other)):
            raise InputError(
                f"{self.path} was begun with other data, so it cannot be resumed: {different}. Name the same data with "
                "--data, or begin anew in another --out"
            )
        if other:
            listed = "; ".join(f"{name} {then[name]} then, {here.get(name)} now" for name in other)
            log(f"this run was begun with other versions, so its figures may differ a little: {listed}")
        if "data" not in noted:
            self.note(_described(recipe) | {"data": json.loads(json.dumps(data)), "versions": here})

    def note(self, about: Mapping[str, Any]) -> None:
        """Write what runs here; `description` reads it."""
        write_text(self.path / RECIPE, json.dumps(about, indent=1) + "\n")

    def check(self, recipe: Recipe, resume: bool) -> None:
        """`InputError` when the folder holds another run, or this one and `resume` is not set."""
        if not self.is_taken:
            return
        if not resume:
            raise InputError(f"{self.path} already holds a run: add --resume to go on with it, or choose another --out")
        there, here = (
            {"name": about["name"], "seed": about["seed"], **about["settings"]}
            for about in (self.description(), _described(recipe))
        )
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        if names:
            different = "; ".join(f"{name} is {there.get(name)} there, {here.get(name)} here" for name in names)
            raise InputError(f"{self.path} holds another run, so it cannot be resumed: {different}")

    def description(self) -> Mapping[str, Any]:
        """What `begin` noted; empty when there is no recipe.json."""
        path = self.path / RECIPE
        if not path.is_file():
            return {}
        try:
            found = _read_json(path)
            for name, kind in _NOTED.items():
                if not isinstance(found.get(name, kind()), kind):
                    raise ValueError(f"{name} is not of the kind {kind.__name__}")
            counts, place = found.get("data", {}).get("counts", {}), found.get("settings", {}).get("data.path")
            if not all(isinstance(own, dict) for own in (counts, *counts.values())) or not isinstance(
                place, str | None
            ):
                raise ValueError("its data are not described as a run does")
            return found
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is damaged ({error}); copy it again, or delete it to report the rows alone"
            ) from error

    def rows(self) -> list[Row]:
        """The rows of the finished stages."""
        return read_rows(self.path)

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write them all again."""
        write_rows(self.path, rows)

    def write_plan(self, stage: str, plan: Plan) -> None:
        """Write what a structural step decided: for `load_plan`, and for the eye."""
        write_text(self.stage(stage) / PLAN, json.dumps(plan.to_fields(), indent=1))
        write_text(self.stage(stage) / PLAN_TEXT, f"{plan}\n")

    def plans(self, stages: Iterable[str]) -> dict[str, str]:
        """{stage: the table of what it cut}, of those that cut something."""
        paths = {name: self.stage(name) / PLAN_TEXT for name in stages}
        return {name: path.read_text(encoding="utf-8").rstrip() for name, path in paths.items() if path.is_file()}

    def histories(self, stages: Iterable[str]) -> dict[str, History]:
        """{stage: its history}, `stages` first; stages that do not train have none."""
        paths = {path.parent.name: path for path in sorted(self.path.glob(f"*/{HISTORY}"))}
        order = [name for name in stages if name in paths]
        found = {name: read_history(paths[name]) for name in dict.fromkeys([*order, *paths])}
        return {name: history for name, history in found.items() if history.get("epoch")}

    def seconds_so_far(self, stage: str) -> float:
        """Seconds of all epochs that stopped trainings have left in the folder of `stage`."""
        return sum(sum(read_history(path).get("seconds", ())) for path in self.stage(stage).rglob(HISTORY))

    def drop_states(self, stage: str) -> None:
        """Delete the states of all trainings of `stage`, which are over; their histories stay."""
        for state in self.stage(stage).rglob(STATE):
            state.unlink()

    def copy_compared(self, recipe: Recipe) -> None:
        """Copy the checkpoints of the stages that are compared to where a reader looks first."""
        for role, name in zip(ROLES, (recipe.before, recipe.after), strict=True):
            with written_whole(self.compared(role)) as path:
                shutil.copyfile(self.checkpoint(name), path)

    def stages_compared(self, stages: Sequence[str]) -> tuple[str, str]:
        """Which of `stages` are Before and After: those that recipe.json names, else those whose checkpoints were
        copied, else those of these names, else the first and the last.
        """
        about, found = self.description(), []
        for role, fallback in zip(ROLES, (stages[0], stages[-1]), strict=True):
            copy = self.compared(role)
            files = {name: self.checkpoint(name) for name in stages if copy.is_file()}
            same = (name for name, file in files.items() if file.is_file() and filecmp.cmp(copy, file, shallow=False))
            names = (about.get(role), next(same, None), role, fallback)
            found.append(next(str(name) for name in names if name in stages))
        return found[0], found[1]


def after_in(path: Path) -> Path:
    """The After of the run whose folder is `path`; else `path` itself."""
    after = RunFolder(path=path).compared(ROLES[1])
    return after if after.is_file() else path


def folders_of_runs(folder: Path, pattern: str = "**") -> list[Path]:
    """The folders below `folder` that hold rows, as far as `pattern` leads."""
    return sorted(path.parent for path in folder.glob(f"{pattern}/{ROWS}"))


def data_facts(loaders: Any) -> dict[str, Any]:
    """What a run notes of its data: {"name", "classes", "counts", "labels", "pixels"}, the last two as keys."""
    info = loaders.info
    return {"name": info.name, "classes": info.classes, "counts": info.counts, **loaders.fingerprint()}


def versions() -> dict[str, str]:
    """{this project and the libraries that weights and figures depend on: version}."""
    found = {"commit": commit(), "python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _difference(then: Mapping[str, Any], now: Mapping[str, Any], decoded_otherwise: bool) -> str:
    """What is different of two `data_facts`."""
    if not then:
        return ""
    if list(then["classes"]) != list(now["classes"]):
        return f"the classes were {', '.join(then['classes'])} and are {', '.join(now['classes'])}"
    counts = [{split: sum(own.values()) for split, own in facts["counts"].items()} for facts in (then, now)]
    if counts[0] != counts[1]:
        return "; ".join(f"{split} had {counts[0].get(split, 0):,} and has {counts[1].get(split, 0):,}"
                         for split in {**counts[0], **counts[1]})  # fmt: skip
    if then["labels"] != now["labels"]:
        return "labels have changed"
    return "pictures have changed" if then["pixels"] != now["pixels"] and not decoded_otherwise else ""


def _described(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON gives it back."""
    about = {"name": recipe.name, "seed": recipe.seed, "before": recipe.before, "after": recipe.after}
    return json.loads(json.dumps({**about, "settings": settings_of(recipe)}))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a recipe, as its folder holds it.

    recipe     the recipe's name; the folder's when it is not noted
    settings   {key: value} of every setting, as JSON gives them back
    rows       one per finished stage
    compared   the stages called Before and After
    counts     {split: {class: pictures}}; empty for runs of older versions
    """

    folder: Path
    recipe: str
    seed: int
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    compared: tuple[str, str]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def row(self, role: str) -> Row:
        """The row of "before" or "after"."""
        name = self.compared[ROLES.index(role)]
        return next(row for row in self.rows if row.step == name)

    def checkpoints(self) -> dict[str, Path]:
        """{"before": path, "after": path} of those that are there."""
        paths = {role: RunFolder(path=self.folder).compared(role) for role in ROLES}
        return {role: path for role, path in paths.items() if path.is_file()}

    def histories(self) -> dict[str, History]:
        """{stage: its history}, in the order of the stages; stages that do not train have none."""
        return RunFolder(path=self.folder).histories(row.step for row in self.rows)

    def plans(self) -> dict[str, str]:
        """{stage: the table of what it cut}."""
        return RunFolder(path=self.folder).plans(row.step for row in self.rows)

    def data(self) -> str:
        """The data set's name, as far as the folder knows it."""
        path = self.settings.get("data.path")
        return Path(path).name.split(".")[0] if path else self.folder.resolve().parent.name


def read_run(folder: Path) -> Run:
    """The run in `folder`. `InputError` when it has no rows."""
    rows, own = read_rows(folder), RunFolder(path=folder)
    if not rows:
        raise InputError(f"{folder} holds no rows.json with rows: name a folder that `python -m solution run` wrote")
    about = own.description()
    return Run(
        folder=folder,
        recipe=about.get("name", folder.name),
        seed=about.get("seed", rows[0].seed),
        settings=about.get("settings", {}),
        rows=tuple(rows),
        compared=own.stages_compared([row.step for row in rows]),
        counts=about.get("data", {}).get("counts", {}),
    )


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Write `rows.json`, which is read back, and `rows.csv` for spreadsheets, each whole or not at all."""
    write_text(folder / ROWS, json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    _write_table(folder / TABLE, [flat(row) for row in rows])


def read_rows(folder: Path) -> list[Row]:
    """The rows in `folder`; none when it has no `rows.json`."""
    path = folder / ROWS
    if not path.exists():
        return []
    try:
        return [_row(fields) for fields in _read_json(path)]
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a table of rows ({error}); delete the folder and run again") from error


def _row(fields: Mapping[str, Any]) -> Row:
    """A row again. `TypeError` or `ValueError` for values of other kinds than a run writes."""
    row, hints = Row(**fields), get_type_hints(Row)
    for name, value in vars(row).items():
        if isinstance(value, str) != (hints[name] is str):
            raise TypeError(f"{name} is {value!r}")
        parse(value, hints[name])
    tables = (row.quality, row.latency_ms, *row.exported.values())
    if not all(isinstance(value, int | float | None) for table in tables for value in table.values()):
        raise TypeError("a figure is no number")
    if safe_name(row.step) != row.step:
        raise ValueError(f"{row.step!r} is no name of a stage")
    return row


def _read_json(path: Path) -> Any:
    """What lies in a file of JSON. `ValueError` when it is none, or when a text in it would command a terminal."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if odd := [text for text in texts_in(found) if printable(text, lines=True) != text]:
        raise ValueError(f"it holds {odd[0]!r}")
    return found


def write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write one line per epoch; what an epoch of an older version did not note is 0."""
    names = dict.fromkeys(name for line in history for name in line)
    _write_table(folder / HISTORY, [{name: line.get(name, 0) for name in names} for line in history])


def read_history(path: Path) -> History:
    """The columns of `path`, a `history.csv`. `InputError` when it is not a table of numbers."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = list(rows[0]) if rows else []
        return {name: tuple(float(row[name]) for row in rows) for name in names}
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not a table of numbers, one line per epoch ({error}); train again") from error


def _write_table(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(lines)


def flat(row: Row) -> dict[str, Any]:
    """One level: quality and latencies become columns such as `quality.f1` and `latency_ms.onnx`."""
    return one_level(dataclasses.asdict(row))


def one_level(fields: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}, however deep."""
    columns: dict[str, Any] = {}
    for name, value in fields.items():
        inner = one_level(value) if isinstance(value, Mapping) else None
        columns |= {name: value} if inner is None else {f"{name}.{key}": item for key, item in inner.items()}
    return columns


def machines(rows: Iterable[Row]) -> str:
    """The hardware of the trainings, and that of the times where it is another."""
    rows = list(rows)
    trained = list(dict.fromkeys(row.hardware for row in rows))
    timed = [name for name in dict.fromkeys(row.timed_on for row in rows) if name and name not in trained]
    return "; ".join([*trained, *(f"times: {name}" for name in timed)])
