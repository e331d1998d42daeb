"""A search as settings: from these, the process that starts it and each of its workers open the same study."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from solution.contracts import InputError, Recipe
from solution.pipeline import check_requirements
from solution.search.hyperband import Hyperband
from solution.search.outcome import Outcome
from solution.search.space import Plain, Space, space_of
from solution.search.study import open_storage, open_study
from solution.search.trainer import Limits, Trainer, stages_to, total_epochs
from solution.search.worker import TrialQueue, work
from solution.settings import settings_of

JOURNAL = "journal.log"
_RUNGS = 27
"""The first rung comes after this part of a trial, unless set otherwise: three rungs of a third each."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over `recipe`.

    space         {address: choices or range}
    folder        where trials, tables, plots and the recipe that is found go
    trials        how many trials are wanted
    storage       a journal file or a URL; None takes a journal file in `folder`
    name          of the study; None takes the recipe's
    objective     "score", or "front": macro F1 against MACs
    first_epochs  epochs before the first rung; None takes a 27th of a trial
    limits        what is not worth training
    """

    recipe: Recipe
    space: Plain
    folder: Path
    trials: int = 100
    storage: str | None = None
    name: str | None = None
    objective: str = "score"
    first_epochs: int | None = None
    limits: Limits = field(default_factory=Limits)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"a search needs at least 1 trial, got {self.trials}")
        if getattr(self.recipe.data, "use_all_train", False):
            raise InputError("trials are judged on the dev split, and data.use_all_train leaves none: switch it off")
        self._check_requirements()

    def _check_requirements(self) -> None:
        """A trial trains what leads to After; nets aside from that way must be there before."""
        way = stages_to(self.recipe, self.recipe.after)
        aside = {stage.name for stage in self.recipe.stages} - {stage.name for stage in way}
        for name, requires in ((stage.name, stage.step.requires) for stage in way):
            for setting, nets in requires.items():
                if missing := sorted(aside.intersection(nets)):
                    raise InputError(
                        f"{name} needs the stage {missing[0]}, which no trial trains: run the recipe once, then "
                        f"search with --set {name}.{setting}=RUN/{missing[0]}/model.safetensors"
                    )
        check_requirements(self.recipe)

    @cached_property
    def checked_space(self) -> Space:
        """The space, or an `InputError` with what is wrong in it."""
        return space_of(self.space, self.recipe)

    @cached_property
    def queue(self) -> TrialQueue:
        """Hands out the trials of the study, which is made when it is not there."""
        epochs = total_epochs(self.recipe)
        first = -(-epochs // _RUNGS) if self.first_epochs is None else self.first_epochs
        hyperband = Hyperband(total=epochs, first=first if epochs else 1)
        about = {
            "space": self.checked_space.described(),
            "recipe": self._settings(),
            "data set": {"images": self._info.counts, "classes": list(self._info.classes)},
            "pace": {"first rung": first},
        }
        study = open_study(
            open_storage(self.storage or self.folder / JOURNAL),
            self.name or self.recipe.name,
            self.objective,
            json.loads(json.dumps(about)),
        )
        return TrialQueue(
            study=study,
            space=self.checked_space,
            folder=self.folder,
            num_trials=self.trials,
            hyperband=hyperband,
            seed=self.recipe.seed,
            own=self.checked_space.own(self.recipe),
        )

    def work(self, log: Callable[[str], None] = print) -> None:
        """Be a worker until no trial is left, or the process that started this one is gone."""
        trainer = Trainer(
            recipe=self.recipe,
            num_classes=len(self._info.classes),
            limits=self.limits,
            device=self.device,
            log=log,
        )
        parent = os.getppid()
        work(self.queue, trainer, keep_on=lambda: os.getppid() == parent, log=log)

    def outcome(self) -> Outcome:
        """What has been found so far."""
        return Outcome(study=self.queue.study, recipe=self.recipe, space=self.checked_space, folder=self.folder)

    @cached_property
    def _info(self) -> Any:
        return self.recipe.data.info()

    def _settings(self) -> dict[str, Any]:
        """What must not change between two starts: all settings but where the data lie."""
        settings = {name: value for name, value in settings_of(self.recipe).items() if name != "data.path"}
        return {"name": self.recipe.name, "seed": self.recipe.seed, **settings}
