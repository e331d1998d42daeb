"""`Loss`, the objective of a training as settings: a blend by weights, one address for each setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from solution.contracts import InputError
from solution.losses.classification import SCHEMES, class_weights, cross_entropy, focal, soft_macro_f1


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Blend of losses: ``Loss(cross_entropy=0.5, macro_f1=0.5)(logits, targets)``.

    cross_entropy  weight of the cross-entropy
    focal          weight of the focal loss
    macro_f1       weight of 1 - soft macro F1, which takes targets as they are, neither smoothed nor weighted
    smoothing      share of the target spread evenly over all classes
    gamma          how strongly the focal loss discounts what is already known
    class_weights  "none", "balanced" or "effective"; the last two need the images per class
    """

    cross_entropy: float = 1.0
    focal: float = 0.0
    macro_f1: float = 0.0
    smoothing: float = 0.1
    gamma: float = 2.0
    class_weights: str = "none"

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "focal", "macro_f1", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if not self.cross_entropy + self.focal + self.macro_f1:
            raise InputError("cross_entropy, focal and macro_f1 must not all be 0, got 0, 0 and 0: nothing is learnt")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing must lie in [0, 1), got {self.smoothing}")
        if self.class_weights not in SCHEMES:
            raise InputError(f"class_weights must be one of {', '.join(SCHEMES)}, got {self.class_weights!r}")

    def __call__(self, logits: Tensor, targets: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Scalar loss of logits (B, C) against labels (B,) or probabilities (B, C).

        counts: training images per class (C,), needed for class weights.
        """
        weights = self._weights(logits, counts)
        total = logits.new_zeros(())
        if self.cross_entropy:
            part = cross_entropy(logits, targets, smoothing=self.smoothing, weights=weights)
            total = total + self.cross_entropy * part
        if self.focal:
            part = focal(logits, targets, gamma=self.gamma, smoothing=self.smoothing, weights=weights)
            total = total + self.focal * part
        if self.macro_f1:
            total = total + self.macro_f1 * soft_macro_f1(logits, targets)
        return total

    def _weights(self, logits: Tensor, counts: Sequence[int] | None) -> Tensor | None:
        if self.class_weights == "none":
            return None
        if counts is None or len(counts) != logits.shape[1]:
            raise InputError(
                f"class_weights {self.class_weights!r} needs the training images of each of {logits.shape[1]} classes, "
                f"got counts {counts}"
            )
        return class_weights(counts, self.class_weights).to(logits)
