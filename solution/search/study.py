"""A study of the right space: what is minimized, the sampler, and what must agree when a study is opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from solution.contracts import InputError

OBJECTIVES = {"score": ("minimize",), "front": ("maximize", "minimize")}
"""What is sought: the best score, or the front of macro F1 against MACs."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a net costs and how good it is on the dev split."""

    macs: int
    f1: float
    score: float

    def values(self, objective: str) -> tuple[float, ...]:
        """As Optuna is told."""
        return (self.score,) if objective == "score" else (self.f1, float(self.macs))

    def minimized(self, objective: str) -> tuple[float, ...]:
        """As they are compared: less is better."""
        return (self.score,) if objective == "score" else (-self.f1, float(self.macs))


def figures_of(trial: FrozenTrial) -> Figures | None:
    """The figures of a trial that was trained to its end, else None."""
    if trial.state != TrialState.COMPLETE:
        return None
    return Figures(**{name: trial.user_attrs[name] for name in ("macs", "f1", "score")})


def open_study(storage: BaseStorage, name: str, objective: str, about: Mapping[str, Mapping[str, Any]]) -> Study:
    """The study called `name`, new or gone on with.

    about: what must not change from one start to the next. `InputError` says what did.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"the objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    about = {"objective": {"objective": objective}, **about}
    known = name in optuna.get_all_study_names(storage)
    if known:
        study = optuna.load_study(study_name=name, storage=storage)
        _check(name, study.user_attrs.get("about", about), about)
    else:
        study = optuna.create_study(
            study_name=name, storage=storage, directions=OBJECTIVES[objective], load_if_exists=True
        )
    if "about" not in study.user_attrs:
        study.set_user_attr("about", about)
    return study


def _check(name: str, found: Mapping[str, Mapping[str, Any]], here: Mapping[str, Mapping[str, Any]]) -> None:
    for part in here:
        there, now = found.get(part, {}), here[part]
        names = [key for key in {**there, **now} if there.get(key) != now.get(key)]
        if names:
            said = "; ".join(f"{key}: {there.get(key, 'not there')} there, {now.get(key, 'not')} here" for key in names)
            raise InputError(
                f"the study {name!r} was begun with another {part} ({said}); choose another --name or --out"
            )


def objective_of(study: Study) -> str:
    """The key of `OBJECTIVES` that `study` was made for."""
    return study.user_attrs["about"]["objective"]["objective"]


class Sampler(TPESampler):
    """Multivariate TPE (Falkner et al., 2018, arXiv:1807.01774) over a space that is known.

    The univariate one takes over 100 ms a trial at 1,000 trials of 15 settings. Running trials count as bad ones, so
    that workers do not all try the same. What is drawn for trial `number` depends on `seed`, that number and the
    trials before alone, not on the worker.
    """

    def __init__(self, kinds: Mapping[str, BaseDistribution], seed: int, number: int) -> None:
        mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        super().__init__(multivariate=True, constant_liar=True, seed=mixed)
        self._known = {name: kind for name, kind in sorted(kinds.items()) if not kind.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space. Optuna would look for it in all trials, which takes longer than drawing from it."""
        return self._known
