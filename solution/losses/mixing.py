"""Mixup and cutmix of a batch: two images in one, and as much of both labels. Reproducible by a generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solution.contracts import InputError


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
