"""Channel pruning in stages: cut a little, train, cut again. What is left can adapt before more goes.

smaller = PruneGradually(prune=PruneChannels(macs="25%"), between=Train(epochs=5), stages=3)(model, context)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from solution.compress.channels.step import PruneChannels, cost_of
from solution.contracts import InputError, Step, StepContext


@dataclass(frozen=True, kw_only=True)
class PruneGradually(Step):
    """Reach the target of `prune` in equal relative steps, with a training after each cut but the last.

    prune    the whole cut: its ratio or its budget is met by the last stage
    between  the step that trains: Train, Distill, GroupPenalty
    stages   number of cuts, at least 2

    Stage k of n leaves share ** (k / n) of the cost, where `share` is what the whole cut leaves. Training keeps its
    state in folders of its own below `context.folder`.
    """

    currency: ClassVar[str | None] = "macs"
    prune: PruneChannels
    between: Step
    stages: int = 3

    def __post_init__(self) -> None:
        if self.stages < 2:
            raise InputError(f"stages must be at least 2 (PruneChannels alone cuts in one), got {self.stages}")

    @property
    def needs(self) -> tuple[str, ...]:
        """What its parts need."""
        return (*self.prune.needs, *self.between.needs)

    @property
    def uses_train_data(self) -> bool:
        """When what comes between the cuts does."""
        return self.between.uses_train_data or self.prune.uses_train_data

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The cut net. `InputError` where a stage would cut nothing, or cannot meet its budget."""
        before = cost_of(self.prune.budget, model, context) if self.prune.budget else 0.0
        for stage in range(1, self.stages + 1):
            part = self._part(stage, model, before, context)
            model = model if part is None else part(model, context)
            if stage < self.stages:
                folder = context.folder and context.folder / f"stage{stage}"
                model = self.between(model, replace(context, folder=folder))
        return model

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The whole cut at once."""
        return self.prune.cost_only(model, context)

    def _part(self, stage: int, model: nn.Module, before: float, context: StepContext) -> PruneChannels | None:
        """The cut of one stage, of a `model` whose full form cost `before`. None where a coarse cut went as far."""
        name = self.prune.budget
        if name is None:
            left = (1 - (self.prune.ratio or 0.0)) ** (1 / self.stages)
            return replace(self.prune, ratio=1 - left)
        share = self.prune.limit(before) / before
        left = before * share ** (stage / self.stages) / cost_of(name, model, context)
        changes: dict[str, Any] = {name: f"{100 * left}%"}
        return replace(self.prune, **changes) if left < 1 else None
