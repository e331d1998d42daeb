"""Progressive resizing (as in Tan and Le, 2021, arXiv:2104.00298): small images first, the full size later."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

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
