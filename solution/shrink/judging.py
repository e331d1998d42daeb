"""How good anything is that answers pictures, and how sure that is: its figures with those of resampled pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from solution import tasks
from solution.evaluate.classify import Predict, classify
from solution.evaluate.segment import overlaps, segment
from solution.shrink.subject import Subject

_RESAMPLED = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Quality on a split: its figures, and for each resampling of the pictures the main one.

    resampled  (R,); empty where quality is not made of single pictures' classes or masks
    """

    quality: dict[str, float]
    figure: float
    resampled: np.ndarray = field(default_factory=lambda: np.empty(0))

    def interval(self) -> tuple[float, float] | None:
        """95 % of the resampled figures lie in it."""
        if not len(self.resampled):
            return None
        low, high = np.percentile(self.resampled, (2.5, 97.5))
        return float(low), float(high)

    def drop_interval(self, before: Judged) -> tuple[float, float] | None:
        """Of the drop from `before`, both on the same pictures each time, in points."""
        if not self._paired(before):
            return None
        low, high = np.percentile(100 * (before.resampled - self.resampled), (2.5, 97.5))
        return float(low), float(high)

    def drop_error(self, before: Judged) -> float:
        """Standard error of the drop from `before`, in points; NaN where it is not known."""
        return float(100 * (before.resampled - self.resampled).std()) if self._paired(before) else math.nan

    def _paired(self, before: Judged) -> bool:
        return 0 < len(self.resampled) == len(before.resampled)


def judged(predict: Predict, subject: Subject, size: int, split: str) -> Judged:
    """Judge `predict` on a split, pictures having this side; NaN without pictures."""
    batches = getattr(subject.loaders(size), split)
    if batches is None:
        return Judged(quality={}, figure=math.nan)
    resampled = np.empty(0)
    if subject.task is tasks.CLASSIFICATION:
        found = classify(predict, batches)
        quality, resampled = found.quality(), _resampled_f1(found.labels, found.predictions)
    elif subject.task is tasks.SEGMENTATION:
        pixels = segment(predict, batches)
        quality, resampled = pixels.quality(), _resampled_overlap(pixels.confusions)
    else:
        quality = dict(subject.task.judge(predict, batches))
    return Judged(quality=quality, figure=quality.get(subject.task.figure, math.nan), resampled=resampled)


def _resampled_f1(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """(R,) macro F1 of pictures drawn with replacement, always the same draws for the same number of pictures."""
    chance, count = np.random.default_rng(0), int(max(labels.max(), predictions.max())) + 1
    pairs, found = labels * count + predictions, []
    for _ in range(_RESAMPLED):
        drawn = pairs[chance.integers(0, len(pairs), len(pairs))]
        confusion = np.bincount(drawn, minlength=count * count).reshape(count, count)
        hits, both = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
        found.append(float((2 * hits[both > 0] / both[both > 0]).mean()))
    return np.array(found)


def _resampled_overlap(confusions: np.ndarray) -> np.ndarray:
    """(R,) mIoU of pictures drawn with replacement, of (N, C, C) pixels, always the same draws for as many pictures."""
    number = len(confusions)
    drawn = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), _RESAMPLED)
    return np.nanmean(overlaps(np.tensordot(drawn, confusions, 1)), axis=1)
