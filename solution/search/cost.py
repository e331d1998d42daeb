"""What a net will cost, before it is trained. A trial that could not win even if it learnt everything is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from solution.contracts import InputError, Recipe, Stage, StepContext
from solution.evaluate.audit import audit
from solution.evaluate.cost import macs
from solution.evaluate.score import Scorer
from solution.models.weights import built
from solution.search.study import Figures, TrialRejected

UNBUILDABLE = 1.0
"""How bad a net that cannot be built is to the sampler: as if it had the competition's reference MACs too many."""


def stages_to(recipe: Recipe, name: str) -> tuple[Stage, ...]:
    """The stages that lead from a fresh net to the stage called `name`, in order."""
    found = []
    while name != Stage.NEW:
        found.append(recipe.stage(name))
        name = recipe.source(name)
    return tuple(reversed(found))


def epochs_of(stage: Stage) -> int:
    """Epochs that a stage trains; 0 for one that does not."""
    return getattr(stage.step, "epochs", 0)


def total_epochs(recipe: Recipe) -> int:
    """Epochs on the way to After."""
    return sum(map(epochs_of, stages_to(recipe, recipe.after)))


def foreseen_macs(recipe: Recipe, num_classes: int) -> int:
    """MACs of After, from a net that has learnt nothing.

    `InputError` when it cannot be built, or when the audit would not trust the count.
    """
    side = recipe.size_of(recipe.after)
    example = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    net = _untrained(recipe, num_classes, example)
    verdict = audit(net, example)
    if not verdict.ok:
        raise InputError(f"the audit does not trust the count of MACs; {verdict}")
    return macs(net, example)


def _untrained(recipe: Recipe, num_classes: int, example: torch.Tensor) -> nn.Module:
    batches = [(example, torch.zeros(len(example), dtype=torch.int64))]
    context = StepContext(example=example, dev=batches, calibration=batches, log=lambda _: None)
    stages = stages_to(recipe, recipe.after)
    net = built(stages[0].model or recipe.model, num_classes).eval()
    for stage in stages:
        net = stage.step.cost_only(net, context).eval()
    return net


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is not worth training.

    macs  the most that After may have
    hope  the highest macro F1 that is thought possible; 1 refuses only what cannot win
    """

    macs: int = Scorer().reference_macs
    hope: float = 1.0

    def __post_init__(self) -> None:
        if self.macs < 1:
            raise InputError(f"the limit of MACs must be at least 1, got {self.macs}")
        if not 0 < self.hope <= 1:
            raise InputError(f"the hoped-for macro F1 must lie in (0, 1], got {self.hope}")

    def check(self, macs: int, done: Iterable[Figures], objective: str) -> None:
        """Raise `Refused` for a net of `macs` that is too big or that cannot beat those `done`, whatever it learns."""
        scorer = Scorer()
        if macs > self.macs:
            excess = (macs - self.macs) / scorer.reference_macs
            raise TrialRejected(f"{macs:,} MACs, more than the limit of {self.macs:,}", excess)
        bound = Figures(macs=macs, f1=self.hope, score=scorer(macs, self.hope))
        for other in done:
            worse = [a - b for a, b in zip(bound.minimized(objective), other.minimized(objective), strict=True)]
            if min(worse) >= 0:
                raise TrialRejected(
                    f"{macs:,} MACs: even macro F1 {self.hope:g} would make score {bound.score:.4f}, no better than "
                    f"macro F1 {other.f1:.4f} at {other.macs:,} MACs (score {other.score:.4f})",
                    max(bound.score - other.score, 1e-6),
                )
