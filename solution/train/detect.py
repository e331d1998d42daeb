"""`TrainDetector`, the step: a detector learns boxes, from scratch or after a cut."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from solution.contracts import InputError, StepContext
from solution.losses.margins import Margin
from solution.losses.mixing import Mixing
from solution.losses.objective import Loss
from solution.train.step import Train


class DetectionObjective(nn.Module):
    """A detector and its own loss."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, 3, H, W) and targets (M, 6): see `solution.models.yolo`."""
        return self.net.loss(images, targets)

    def finished(self, net: nn.Module) -> nn.Module:
        """`net` as it is: nothing was trained beside it."""
        return net


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

    def objective(self, net: nn.Module, context: StepContext) -> DetectionObjective:
        """`net` and its loss. `InputError` when it has none."""
        if not hasattr(net, "loss"):
            raise InputError(f"{type(net).__name__} is no detector with a loss of its own: use Train for classifiers")
        return DetectionObjective(net)
