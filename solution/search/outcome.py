"""What a search leaves: the best trial as a recipe file, a table of all trials, and plots: how the score fell, macro F1
against MACs, and what the score depends on.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.trial import FrozenTrial

from solution.contracts import InputError, Recipe
from solution.evaluate.score import Scorer
from solution.recipes.catalogue import recipe_in
from solution.report.plots import Point, Series, pareto
from solution.report.style import Drawing, canvas, color, drawn, quiet
from solution.runtime import commit, hardware, write_text, written_whole
from solution.search.hyperband import ranks
from solution.search.space import Space, applied
from solution.search.study import Figures, Tried, figures_of, latest, objective_of, tried
from solution.settings import changed_fields
from solution.text import columns

BEST = "best.py"
_SHOWN = 10


def best_of(study: Study) -> FrozenTrial:
    """The trial with the best score. `InputError`, with the first reason, when none was trained to its end."""
    trials = study.get_trials(deepcopy=False)
    done = [(figures.score, trial) for trial in trials if (figures := figures_of(trial))]
    if done:
        return min(done, key=lambda pair: pair[0])[1]
    reason = next((reason for trial in trials if (reason := tried(trial).reason)), "none has ended yet")
    raise InputError(f"none of {len(trials)} trials was trained to its end: {reason}")


def front_of(study: Study) -> list[FrozenTrial]:
    """The trials that no other one beats in both macro F1 and MACs, by MACs."""
    trials = study.get_trials(deepcopy=False)
    done = [(figures, trial) for trial in trials if (figures := figures_of(trial))]
    if not done:
        return []
    order = ranks([figures.minimized("front") for figures, _ in done])
    unbeaten = [pair for pair, rank in zip(done, order, strict=True) if rank == 0]
    return [trial for _, trial in sorted(unbeaten, key=lambda pair: pair[0].macs)]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Writes what `study`, a search over `recipe` in `space`, has found into `folder`."""

    study: Study
    recipe: Recipe
    space: Space
    folder: Path

    def write(self) -> list[Path]:
        """The files: best.py, trials.csv, plots; with two objectives a recipe for each point of the front too."""
        best = best_of(self.study)
        lines = [tried(trial) for trial in self.study.get_trials(deepcopy=False)]
        files = [self._recipe(best, self.folder / BEST)]
        if objective_of(self.study) == "front":
            files += [
                self._recipe(trial, self.folder / "front" / f"trial_{trial.number:04d}.py")
                for trial in front_of(self.study)
            ]
        files.append(self._table(lines))
        drawings = {"history": history_drawing(lines), "front": self._front(lines)}
        if weights := importance(self.study):
            drawings["importance"] = importance_drawing(weights)
        return [*files, *(self._drawing(name, drawing) for name, drawing in drawings.items())]

    def _front(self, lines: Sequence[Tried]) -> Drawing:
        own = self.recipe.report
        return front_drawing(lines, own({}, "").reference if own else (), self.recipe.score)

    def _recipe(self, trial: FrozenTrial, path: Path) -> Path:
        found = applied(self.recipe, self.space.read(trial.params))
        found = dataclasses.replace(found, name=f"{self.recipe.name}_{path.stem}")
        figures = figures_of(trial)
        assert figures is not None  # recipes are written for trials that were trained to their end
        write_recipe(path, found, self._about(trial, figures, path))
        return path

    def _about(self, trial: FrozenTrial, figures: Figures, path: Path) -> str:
        return (
            f"Trial {trial.number} of a search over {self.recipe.name}: score {figures.score:.4f} on the dev split."
            f"\n\n    python -m solution run {path} --data PATH --seed {self.recipe.seed} --out runs/{path.stem}\n\n"
            f"Macro F1 {figures.f1:.4f} on the dev split, which the search looked at: val will be lower. "
            f"{figures.macs:,} MACs.\n{len(self.study.get_trials(deepcopy=False))} trials, seed {self.recipe.seed}, "
            f"commit {commit() or '-'}, {hardware()}.\n"
        )

    def _drawing(self, name: str, drawing: Drawing) -> Path:
        path = self.folder / f"{name}.svg"
        write_text(path, drawing.file_text())
        return path

    def _table(self, lines: Sequence[Tried]) -> Path:
        path = self.folder / "trials.csv"
        rows = [{**vars(line), **line.drawn} for line in lines]
        columns = [field.name for field in dataclasses.fields(Tried) if field.name != "drawn"]
        names = [*columns[:-1], *(name for name, _ in self.space.fields), columns[-1]]
        with written_whole(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path


ENOUGH = 20
"""Finished trials without which importance would be chance."""


def importance(study: Study) -> dict[str, float]:
    """{name: its share of what the score depends on}, largest first; empty while there are too few trials.

    PED-ANOVA (Watanabe et al., 2023, arXiv:2304.10255), over the trials that were trained to their end.
    """
    trials = study.get_trials(deepcopy=False)
    score = {trial.number: figures.score for trial in trials if (figures := figures_of(trial))}
    if len(score) < ENOUGH or len(set(score.values())) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it takes low values for good ones, which they are
        return optuna.importance.get_param_importances(study, target=lambda trial: score[trial.number])


def table(study: Study) -> str:
    """The best trials as aligned text, then those that rest or failed, as far as there is room; a line of the refused.

    A trial that went on is one row, as it is one of the trials that were wanted; refused ones are none of these.
    """
    order = ("complete", "resting", "failed", "running")
    every = [tried(trial) for trial in latest(study.get_trials(deepcopy=False)).values()]
    lines = [line for line in every if line.state != "refused"]
    lines.sort(key=lambda line: (order.index(line.state), math.inf if line.score is None else line.score))
    rows: list[tuple[str, ...]] = [("trial", "MACs", "F1", "score", "state", "settings")]
    for line in lines[:_SHOWN]:
        figures = ((line.macs, ","), (line.f1, ".4f"), (line.score, ".4f"))
        shown = ("-" if value is None else format(value, form) for value, form in figures)
        state = f"resting after {line.epochs} epochs" if line.epochs else line.state
        rows.append((str(line.number), *shown, state, _settings(line)))
    text = columns(rows, left=(4, 5))
    if refused := [line for line in every if line.state == "refused"]:
        text.append(f"refused before their training: {len(refused)}, such as trial {refused[0].number}: "
                     f"{refused[0].reason}")  # fmt: skip
    return "\n".join(text)


def _settings(line: Tried) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in line.drawn.items()
    )


_OUTLIER = 1.3
"""Scores are shown up to so many times the one that a tenth of them exceed."""


def history_drawing(lines: Sequence[Tried]) -> Drawing:
    """Score of each trial in the order of their numbers, and the best so far."""
    scored = {line.number: line.score for line in lines if line.score is not None}
    done = [line for line in lines if line.state == "complete" and line.number in scored]
    resting = [line for line in lines if line.state == "resting" and line.number in scored]
    scores = [scored[line.number] for line in (*done, *resting)]
    best = np.minimum.accumulate([scored[line.number] for line in done])
    top = _OUTLIER * float(np.quantile(scores, 0.9))
    hidden = sum(score > top > 0 for score in scores)
    with canvas(3.6) as (figure, axes):
        axes.scatter([t.number for t in resting], [t.score for t in resting], 16, facecolor="none",
                     edgecolor=color("before"), label=f"resting, at its last rung ({len(resting)})")  # fmt: skip
        axes.scatter([t.number for t in done], [t.score for t in done], 22, color=color("after"),
                     label=f"trained to the end ({len(done)})")  # fmt: skip
        axes.step([line.number for line in done], best, where="post", color=color("ink"), label="best so far")
        if top > 0:
            axes.set_ylim(top=min(top, max(scores) + 0.02))
        for state, mark in (("refused", "|"), ("failed", "x")):
            numbers = [line.number for line in lines if line.state == state]
            if numbers:
                axes.plot(numbers, [0.02] * len(numbers), mark, color=color("faint"), clip_on=False,
                          transform=axes.get_xaxis_transform(), label=f"{state} ({len(numbers)})")  # fmt: skip
        quiet(axes)
        axes.set(xlabel="trial", ylabel="score on the dev split")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        first = min(done, key=lambda line: scored[line.number])
        score = scored[first.number]
        alt = f"{len(done)} trials trained to the end, the best, {first.number}, with score {score:.4f}"
        above = f" {hidden} far above are not shown." if hidden else ""
        return drawn(figure, "history", alt + "." + above, "Lower is better." + above)


def front_drawing(lines: Sequence[Tried], reference: Sequence[Series] = (), scored: bool = False) -> Drawing:
    """Macro F1 against MACs: the trials and their front with `reference`; with lines of equal score when `scored`."""
    done = [line for line in lines if line.state == "complete"]
    best = min(done, key=lambda line: math.inf if line.score is None else line.score)
    points = tuple(
        Point(macs=line.macs, quality=line.f1, name=f"trial {line.number}" if line is best else "")
        for line in done
        if line.macs is not None and line.f1 is not None
    )
    trials = Series(name="trials (dev split)", points=points, look="after", joined=True)
    return pareto([*reference, trials], name="search-front", scorer=Scorer() if scored else None)


def importance_drawing(weights: Mapping[str, float]) -> Drawing:
    """What share of the score each setting explains."""
    names = list(weights)[::-1]
    with canvas(1.4 + 0.3 * len(weights)) as (figure, axes):
        bars = axes.barh(names, [weights[name] for name in names], color=color("after"))
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9, color=color("faint"))
        quiet(axes, "x")
        axes.set(xlim=(0, 1.3 * max(weights.values())))
        figure.supxlabel("share of the score", fontsize=11)
        listed = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
        return drawn(figure, "importance", f"Importance for the score: {listed}.", "PED-ANOVA, all together 1.")


_WIDTH = 100
_STEP = "    "


def write_recipe(path: Path, recipe: Recipe, about: str) -> None:
    """Write `recipe` to `path`, whole, with `about` as the docstring. The file, run, gives the very recipe back."""
    imports = sorted({f"from {kind.__module__} import {kind.__name__}" for kind in _kinds(recipe)})
    text = "\n".join(
        [
            f'"""{about}"""\n',
            "from __future__ import annotations\n",
            *imports,
            "\n\ndef recipe() -> Recipe:",
            f'{_STEP}"""The settings that were found."""',
            f"{_STEP}return {spelled(recipe, _STEP)}\n",
        ]
    )
    with written_whole(path) as temporary:
        temporary.write_text(text)
        found = recipe_in(temporary)
        if found != recipe:
            raise RuntimeError(f"the file would give another recipe back:\n{found}\ninstead of\n{recipe}")


def _kinds(value: Any) -> Iterator[type | FunctionType]:
    """Every dataclass and every function in `value`."""
    if isinstance(value, FunctionType):
        yield value
    elif dataclasses.is_dataclass(value):
        yield type(value)
        for _, item in changed_fields(value):
            yield from _kinds(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _kinds(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _kinds(item)


def spelled(value: Any, indent: str = "") -> str:
    """`value` as Python, broken into lines where it is long. The first line stands behind `indent`."""
    if isinstance(value, FunctionType):
        return value.__name__
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if dataclasses.is_dataclass(value):
        named = [(f"{name}=", item) for name, item in changed_fields(value)]
        return _bracketed(f"{type(value).__name__}(", named, ")", indent)
    if isinstance(value, tuple | list):
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        return _bracketed(opening, [("", item) for item in value], closing, indent)
    if isinstance(value, dict):
        return _bracketed("{", [(f"{spelled(key)}: ", item) for key, item in value.items()], "}", indent)
    return repr(value)


def _bracketed(opening: str, parts: list[tuple[str, Any]], closing: str, indent: str) -> str:
    flat = ", ".join(name + spelled(item) for name, item in parts)
    lone = "," if len(parts) == 1 and opening == "(" else ""
    if "\n" not in flat and len(indent) + len(opening) + len(flat) <= _WIDTH:
        return f"{opening}{flat}{lone}{closing}"
    inner = indent + _STEP
    lines = [f"{inner}{name}{spelled(item, inner)},\n" for name, item in parts]
    return f"{opening}\n{''.join(lines)}{indent}{closing}"
