"""`Train` and `TrainDetector`, the steps: from scratch, and for fine-tuning after a cut."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from solution.contracts import InputError, Step, StepContext
from solution.losses.classification import Loss
from solution.losses.margins import Margin
from solution.losses.mixing import Mixing
from solution.train.objective import DetectionObjective, Objective
from solution.train.settings import TrainSettings
from solution.train.trainer import fit


@dataclass(frozen=True, kw_only=True)
class Train(TrainSettings, Step):
    """Train on `context.train`; keep the epoch with the best macro F1 on `context.dev`, which decides.

    Fields: see `TrainSettings`.
    """

    @property
    def uses_train_data(self) -> bool:
        """It learns from train."""
        return True

    def objective(self, net: nn.Module, context: StepContext) -> nn.Module:
        """What is made small: `net` with its loss. Has `net`, and `finished(net)`, which undoes what was added."""
        return Objective(net, self, context)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A trained copy of `model`. `InputError` when the loss stops being a number."""
        return fit(model, self, context, self.objective)

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """`model`: a training changes no cost."""
        return model


@dataclass(frozen=True, kw_only=True)
class TrainDetector(Train):
    """`Train` with the net's own loss, for nets that have one; the last epoch is kept.

    What `Train` does to classes (loss, mixing, margin, auxiliary heads, growing images) is not for boxes.
    """

    epochs: int = 30
    lr: float = 2e-4
    optimizer: str = "adamw"
    warmup_epochs: float = 1.0
    weight_decay: float = 5e-4
    keep: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = Train(loss=Loss(), mixing=Mixing(), margin=Margin(kind="none"), keep="last")
        for name in ("loss", "mixing", "margin", "auxiliary", "first_size", "keep"):
            if getattr(self, name) != getattr(plain, name):
                raise InputError(f"a detector is trained without {name}: leave it at {getattr(plain, name)!r}")

    def objective(self, net: nn.Module, context: StepContext) -> nn.Module:
        """`net` and its loss. `InputError` when it has none."""
        if not hasattr(net, "loss"):
            raise InputError(f"{type(net).__name__} is no detector with a loss of its own: use Train for classifiers")
        return DetectionObjective(net)
