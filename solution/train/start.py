"""`Start` and `Unchanged`, the steps: a net that an earlier run has left, and the net as it came."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn

from solution.contracts import InputError, Step, StepContext
from solution.train.teachers import find_net


@dataclass(frozen=True, kw_only=True)
class Start(Step):
    """The net of a checkpoint in place of the recipe's fresh one: as it was built, cut and trained.

    path  a checkpoint, packed or not, or the folder of a run, whose After is taken
    """

    path: str

    @property
    def requires(self) -> dict[str, tuple[str, ...]]:
        """The net to go on from."""
        return {"path": (self.path,)}

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The net. `InputError` for a file that is missing, or a net that knows other classes than the data."""
        if context.load is None:
            raise InputError("nothing here can read checkpoints: pass StepContext(load=...)")
        return find_net(self.path, context)[0]

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The net itself: what it costs is known from its file."""
        return self.run(model, context)


@dataclass(frozen=True, kw_only=True)
class Unchanged(Step):
    """The net as it came, with the weights that it came with."""

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A copy."""
        return copy.deepcopy(model).eval()

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """`model`."""
        return model
