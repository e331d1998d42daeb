"""What a search leaves: the best trial as a recipe file, a table of all trials, plots."""

from __future__ import annotations

import csv
import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna import Study
from optuna.trial import FrozenTrial

from solution.contracts import InputError, Recipe
from solution.report.style import Drawing
from solution.runtime import commit, hardware, write_text, written_whole
from solution.search.hyperband import ranks
from solution.search.plots import front_drawing, history_drawing, importance_drawing
from solution.search.recipe_file import write_recipe
from solution.search.space import Space, applied
from solution.search.study import Figures, Tried, figures_of, objective_of, tried
from solution.text import columns

BEST = "best.py"
_SHOWN = 10


def best_of(study: Study) -> FrozenTrial:
    """The trial with the best score. `InputError`, with the first reason, when none was trained to its end."""
    trials = study.get_trials(deepcopy=False)
    done = [(figures.score, trial) for trial in trials if (figures := figures_of(trial))]
    if done:
        return min(done, key=lambda pair: pair[0])[1]
    reason = next((said for trial in trials if (said := tried(trial).said)), "none has ended yet")
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
            files += [self._recipe(trial, self.folder / "front" / _name(trial)) for trial in front_of(self.study)]
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
            f"Macro F1 {figures.f1:.4f} on the dev split, which the search looked at: val will say less. "
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


def _name(trial: FrozenTrial) -> str:
    return f"trial_{trial.number:04d}.py"


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
    """The best trials as aligned text, then those that ended before their end, as far as there is room."""
    order = ("complete", "resting", "refused", "failed", "running")
    lines = [tried(trial) for trial in study.get_trials(deepcopy=False)]
    lines.sort(key=lambda line: (order.index(line.state), math.inf if line.score is None else line.score))
    rows: list[tuple[str, ...]] = [("trial", "MACs", "F1", "score", "state", "settings")]
    for line in lines[:_SHOWN]:
        figures = ((line.macs, ","), (line.f1, ".4f"), (line.score, ".4f"))
        shown = ("-" if value is None else format(value, form) for value, form in figures)
        state = f"resting after {line.epochs} epochs" if line.epochs else line.state
        rows.append((str(line.number), *shown, state, _settings(line)))
    return "\n".join(columns(rows, left=(4, 5)))


def _settings(line: Tried) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in line.drawn.items()
    )
