"""How well any callable on a batch tells pixels apart, an exported runtime too: mIoU, accuracy, each class.

The intersection over union of a class is the share of the pixels that it has or is given which it has and is given;
mIoU is its mean over the classes that occur, as in Everingham et al., 2010 (doi:10.1007/s11263-009-0275-4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from solution.contracts import Batches, InputError
from solution.evaluate.classify import NoNumbersError

Predict = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to logits (B, num_classes, h, w)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmented:
    """What was found in one pass: (N, classes, classes) pixels of each image, row the label, column the prediction."""

    confusions: np.ndarray

    @property
    def confusion(self) -> np.ndarray:
        """(classes, classes), of all images."""
        return self.confusions.sum(0)

    @property
    def per_class(self) -> np.ndarray:
        """(classes,) intersection over union; NaN for a class that never occurs."""
        return overlaps(self.confusion)

    def quality(self) -> dict[str, float]:
        """The figures of a `Row`."""
        confusion = self.confusion
        return {"miou": mean_overlap(confusion), "accuracy": float(np.diag(confusion).sum() / confusion.sum())}


def overlaps(confusion: np.ndarray) -> np.ndarray:
    """(..., classes) of confusions (..., classes, classes); NaN where a class does not occur."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(-1) + confusion.sum(-2) - hits
    return np.where(either > 0, hits / np.maximum(either, 1), np.nan)


def mean_overlap(confusion: np.ndarray) -> float:
    """Mean of `overlaps` over the classes that occur."""
    return float(np.nanmean(overlaps(confusion)))


def segment(predict: Predict, batches: Batches) -> Segmented:
    """Run `predict` over all batches of (images, masks (B, H, W)), negative where a pixel counts nowhere.

    Logits of another size than the masks are brought to it. `InputError` when there is no pixel to judge on, or when
    the answers do not fit the masks.
    """
    found = []
    with torch.inference_mode():
        for images, masks in batches:
            logits = predict(images).cpu().float()
            _check(logits, masks)
            given = as_large(logits, masks).argmax(1)
            found += [_confusion(*pair, logits.shape[1]) for pair in zip(masks.cpu(), given, strict=True)]
    if not found or not sum(int(one.sum()) for one in found):
        raise InputError("there are no pixels to judge on: all masks are empty, or ignored")
    return Segmented(confusions=np.stack(found))


def as_large(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits (B, C, h, w) brought to the size of masks (B, H, W)."""
    if logits.shape[2:] == masks.shape[1:]:
        return logits
    return F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that count, of logits (B, C, h, w) and masks (B, H, W) int64."""
    return F.cross_entropy(as_large(logits, masks), masks, ignore_index=-100)


def _check(logits: Tensor, masks: Tensor) -> None:
    if logits.dim() != 4 or masks.dim() != 3 or len(logits) != len(masks):
        raise InputError(
            f"masks {tuple(masks.shape)} need logits (B, classes, H, W), and the net gave {tuple(logits.shape)}"
        )
    if not torch.isfinite(logits).all():
        raise NoNumbersError(
            "the net answers with NaN or infinity: its weights are damaged, or half precision overflowed"
        )
    if int(masks.max()) >= logits.shape[1]:
        raise InputError(
            f"masks hold class {int(masks.max())}, and the net knows {logits.shape[1]} classes: it was trained for "
            "other data"
        )


def _confusion(mask: Tensor, given: Tensor, classes: int) -> np.ndarray:
    counts = mask >= 0
    pairs = mask[counts] * classes + given[counts]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes).numpy()
