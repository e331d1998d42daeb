"""Learning rate and weight averaging as pure functions of the step."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


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
