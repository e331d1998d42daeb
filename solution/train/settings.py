"""`TrainSettings`: how a training goes, field by field, for every step that trains; and the schedules that follow from
them: learning rate, weight averaging and growing images, as pure functions of the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from solution.contracts import InputError
from solution.losses.classification import Loss, Mixing
from solution.losses.margins import Margin
from solution.runtime import limit


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Factor on the peak learning rate: linear from near 0 over `warmup` steps, then half a cosine to near 0.

    Loshchilov and Hutter, 2017 (arXiv:1608.03983), one cycle; the ramp after Goyal et al., 2017 (arXiv:1706.02677).
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def ema_decay(step: int, decay: float) -> float:
    """Decay of the running average of the weights at `step`: small at first, so that the start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


STEP = 8


def side_at(epoch: int, epochs: int, first: int, full: int) -> int:
    """Side in pixels of the training images: grows from `first` in steps of 8 over the first half of the epochs.

    The second half has the `full` side; so has every epoch when `first` is 0.
    """
    growing = epochs // 2
    if not first or epoch >= growing:
        return full
    return first + STEP * int((full - first) * epoch / growing / STEP)


def resized(images: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) at `side` x `side` pixels; those that have them come back as they are."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
FITTED = ("all", "classifier")
KEPT = ("best", "last")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a training goes.

    epochs           passes over the training split
    lr               peak learning rate, reached after `warmup_epochs`, then a cosine down to 0
    optimizer        "sgd" (Nesterov momentum) or "adamw"
    momentum         share of the last step that goes on in the next one; of "sgd" alone
    weight_decay     on weights of two or more dimensions; norms and biases are spared
    warmup_epochs    the learning rate climbs from 0 to `lr` over as many
    fitted           "all" weights, or those of the "classifier" alone: a new one that has settled pulls a trained trunk
                     less far away (Kumar et al., 2022, arXiv:2202.10054)
    frozen_norms     batch norms keep the statistics that the net came with: published weights may answer quite
                     differently under those of small batches of other pictures
    loss             what is made small: a blend of losses, label smoothing, class weights
    mixing           mixup and cutmix of the training batches
    margin           angular margin between the classes while training, folded to the plain classifier at the end
    auxiliary        weight of heads on earlier feature maps, thrown away at the end; 0 makes none
    drop_path        chance to skip the last residual block while training; earlier ones are skipped less; 0: never
    first_size       side of the training images at first, in pixels; grows over half of the epochs; 0: full at once
    ema_decay        running average of the weights that is judged and kept; 0 switches it off
    precision        "fp32", "bf16", "fp16", or "auto": bf16 on a GPU that has it, fp32 on the CPU, where small nets
                     were slower in bf16
    keep             "best" epoch on the dev split, or the "last"
    """

    epochs: int = 60
    lr: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: float = 2.0
    fitted: str = "all"
    frozen_norms: bool = False
    loss: Loss = field(default_factory=Loss)
    mixing: Mixing = field(default_factory=Mixing)
    margin: Margin = field(default_factory=lambda: Margin(kind="none"))
    auxiliary: float = 0.0
    drop_path: float = 0.0
    first_size: int = 0
    ema_decay: float = 0.0
    precision: str = "auto"
    keep: str = "best"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs must be at least 1, got {self.epochs}")
        if self.epochs > (most := limit("EPOCHS", 1_000_000)):
            raise InputError(f"epochs must be at most {most:,}, got {self.epochs}")
        for name, low, high in (("lr", 0, 100), ("warmup_epochs", -1, 1e6)):
            if not low < getattr(self, name) <= high:
                raise InputError(f"{name} must lie in ({low}, {high}], got {getattr(self, name)}")
        if not 0 <= self.auxiliary <= 100:
            raise InputError(f"auxiliary must lie in [0, 100], got {self.auxiliary}")
        if self.first_size and self.first_size < 8:
            raise InputError(f"first_size must be 0 or at least 8, got {self.first_size}")
        for name in ("momentum", "weight_decay", "ema_decay", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        choices = {"optimizer": OPTIMIZERS, "precision": PRECISIONS, "fitted": FITTED, "keep": KEPT}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
