"""Losses of a classifier, and mixup and cutmix of its batches.

Targets are labels (B,) int64, or probabilities (B, C) as mixup and cutmix make them. A label and its one-hot
probabilities give the same loss, class weights included. Mixing is reproducible by a generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from solution.contracts import InputError

SCHEMES = ("none", "balanced", "effective")
EFFECTIVE_BETA = 0.999
"""The overlap of images that "effective" assumes: a class of several thousand images hardly gains from more."""


def as_probabilities(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as probabilities (B, C) in the type of `logits` (B, C): labels become one-hot.

    Raises `InputError` when they are neither labels nor probabilities for these logits.
    """
    check_targets(targets, logits)
    if targets.ndim == 2:
        return targets.to(logits.dtype)
    return torch.zeros_like(logits).scatter_(1, targets[:, None], 1)


def check_targets(targets: Tensor, logits: Tensor) -> None:
    """`InputError` unless targets are labels (B,) int64 or probabilities (B, C) for logits (B, C)."""
    labels = targets.dtype == torch.int64 and targets.shape == logits.shape[:1]
    probabilities = targets.is_floating_point() and targets.shape == logits.shape
    if logits.ndim != 2 or not (labels or probabilities):
        raise InputError(
            f"logits (B, C) need targets of int64 (B,) or probabilities (B, C), got {targets.dtype} "
            f"{tuple(targets.shape)} for logits {tuple(logits.shape)}"
        )


def cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy with label smoothing (Szegedy et al., 2016, arXiv:1512.00567).

    weights (C,): each image counts as much as its class; their common scale has no effect.
    """
    check_targets(targets, logits)
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    wanted = as_probabilities(targets, logits)
    total = F.cross_entropy(logits, wanted, weight=weights, label_smoothing=smoothing, reduction="sum")
    return total / (wanted @ weights).sum()


def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean focal loss (Lin et al., 2017, arXiv:1708.02002): what is already known counts (1 - p)^gamma as much.

    With probabilities as targets each class is discounted by its own p. gamma 0 gives `cross_entropy`.
    """
    wanted = as_probabilities(targets, logits)
    smoothed = wanted * (1 - smoothing) + smoothing / logits.shape[1]
    log_p = logits.log_softmax(1)
    unknown = (-log_p.expm1()).clamp(min=1e-12)  # the slope of x^gamma at 0 is infinite for gamma below 1
    losses = -smoothed * unknown**gamma * log_p  # (B, C)
    if weights is None:
        return losses.sum(1).mean()
    return (losses @ weights).sum() / (wanted @ weights).sum()


def soft_macro_f1(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - mean over the batch's classes of the soft F1, where counts are sums of probabilities; in [0, 1].

    Classes that no target of the batch holds have no F1 and are left out, so that a perfect prediction of labels
    costs 0. Batches of several images a class estimate it; tiny ones do not.
    """
    wanted, p = as_probabilities(targets, logits), logits.softmax(1)
    held = wanted.sum(0)  # (C,)
    f1 = 2 * (p * wanted).sum(0) / (p.sum(0) + held).clamp(min=1e-12)
    present = (held > 0).to(f1.dtype)
    return 1 - (f1 * present).sum() / present.sum()


def class_weights(counts: Sequence[int], scheme: str) -> Tensor:
    """Weights (C,) float32 from the images per class, scaled so that their mean over the images is 1.

    "none" weighs all alike, "balanced" by 1 / n, "effective" by (1 - beta) / (1 - beta^n) (Cui et al., 2019,
    arXiv:1901.05555). Raises `InputError` for another scheme and for a class without images.
    """
    if scheme not in SCHEMES:
        raise InputError(f"class_weights must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    if not counts or min(counts) < 1:
        raise InputError(f"class weights need at least one image of every class, got counts {tuple(counts)}")
    n = torch.tensor(counts, dtype=torch.float64)
    raw = {
        "none": torch.ones_like(n),
        "balanced": 1 / n,
        "effective": (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**n),
    }[scheme]
    return (raw * n.sum() / (raw * n).sum()).float()


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


def mixup(images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weighted mean of each image (B, C, H, W) and another one of the batch, of targets (B, K) likewise.

    The weight is one draw from Beta(alpha, alpha) (Zhang et al., 2018, arXiv:1710.09412).
    """
    kept, order = _beta(alpha, generator), _order(images, generator)
    return torch.lerp(images[order], images, kept), torch.lerp(targets[order], targets, kept)


def cutmix(images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of each image (B, C, H, W) replaced by that of another one, targets (B, K) mixed by its area.

    The area left is a draw from Beta(alpha, alpha), the center uniform; what falls off the border is not counted
    (Yun et al., 2019, arXiv:1905.04899).
    """
    side, order = math.sqrt(1 - _beta(alpha, generator)), _order(images, generator)
    top, bottom = _span(images.shape[2], side, generator)
    left, right = _span(images.shape[3], side, generator)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    return mixed, torch.lerp(targets[order], targets, kept)


def _beta(alpha: float, generator: torch.Generator) -> float:
    # PyTorch's public Beta takes no generator: NumPy's is seeded by ours.
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _order(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(images), generator=generator).to(images.device)


def _span(length: int, share: float, generator: torch.Generator) -> tuple[int, int]:
    center, size = int(torch.randint(length, (), generator=generator)), round(length * share)
    start = center - size // 2
    return max(0, start), min(length, start + size)


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Which batches are mixed, and how.

    mixup   alpha of mixup; 0 switches it off
    cutmix  alpha of cutmix; 0 switches it off; with both on, each batch takes one of them, with even odds
    share   share of the batches that are mixed
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if not 0 < self.share <= 1:
            raise InputError(f"share must lie in (0, 1], got {self.share}")

    @property
    def on(self) -> bool:
        """Whether any batch is mixed at all."""
        return bool(self.mixup or self.cutmix)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) to mixed images and probabilities (B, num_classes).

        `generator` lives on the CPU; the same state gives the same mix.
        """
        targets = torch.zeros(len(labels), num_classes, dtype=images.dtype, device=images.device)
        targets.scatter_(1, labels[:, None], 1)
        chance, coin = torch.rand(2, generator=generator).tolist()
        if not self.on or chance >= self.share:
            return images, targets
        if self.mixup and (coin < 0.5 or not self.cutmix):
            return mixup(images, targets, self.mixup, generator)
        return cutmix(images, targets, self.cutmix, generator)
