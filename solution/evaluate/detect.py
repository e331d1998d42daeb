"""How well any callable on a batch detects, an exported runtime too: precision, recall, mAP50, mAP50-95.

Mean average precision as COCO defines it: for each class that occurs and each overlap from 0.50 to 0.95, precision at
101 recalls, never rising. Lin et al., 2014 (arXiv:1405.0312). Precision and recall are at the confidence of the best
F1, both means over classes, at an overlap of 0.5: as in YOLO's own tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solution.contracts import Batches, InputError
from solution.evaluate.classify import NoNumbersError

Predict = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) to candidates (B, 4 + num_classes, N): corners in pixels, then scores from 0 to 1."""

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
CONFIDENCES = np.linspace(0, 1, 1001)
LEAST_SCORE, MOST_OVERLAP, MOST_BOXES, MOST_CANDIDATES = 0.001, 0.7, 300, 30_000


@dataclass(frozen=True, kw_only=True)
class Detected:
    """The figures of one pass, fractions of 1. average_precision: {class: (10,) one for each overlap}."""

    precision: float
    recall: float
    average_precision: dict[int, np.ndarray]

    @property
    def map50(self) -> float:
        """Mean over classes at an overlap of 0.5."""
        return float(np.mean([values[0] for values in self.average_precision.values()]))

    @property
    def map(self) -> float:
        """Mean over classes and overlaps from 0.50 to 0.95."""
        return float(np.mean([values.mean() for values in self.average_precision.values()]))

    def quality(self) -> dict[str, float]:
        """The figures of a `Row`."""
        return {"precision": self.precision, "recall": self.recall, "map50": self.map50, "map": self.map}


def detect(predict: Predict, batches: Batches) -> Detected:
    """Run `predict` over all batches. `InputError` when there is no box to find, or answers are no candidates."""
    found, wanted = [], []
    with torch.inference_mode():
        for images, targets in batches:
            candidates = predict(images).cpu()
            _check(candidates, len(images))
            found += [picked(one).numpy() for one in candidates]
            wanted += [targets[targets[:, 0] == index, 1:].cpu().numpy() for index in range(len(images))]
    if not sum(map(len, wanted)):
        raise InputError("there are no boxes to judge on")
    return judged(found, wanted)


def _check(candidates: Tensor, count: int) -> None:
    if candidates.dim() != 3 or len(candidates) != count or candidates.shape[1] < 5:
        raise InputError(f"{count} images need candidates (B, 4 + classes, N), got {tuple(candidates.shape)}")
    if not torch.isfinite(candidates).all():
        raise NoNumbersError("the model answers with NaN or infinity: its weights are damaged, or float16 overflowed")


def picked(candidates: Tensor) -> Tensor:
    """Of the candidates (4 + C, N) of one image those that stay, best first: (D, 6) of corners, score, class.

    Of boxes of one class that overlap by more than `MOST_OVERLAP` the best stays.
    """
    from torchvision.ops import batched_nms

    labels, cells = (candidates[4:] > LEAST_SCORE).nonzero(as_tuple=True)
    scores = candidates[4:][labels, cells]
    best = scores.argsort(descending=True, stable=True)[:MOST_CANDIDATES]
    boxes, scores, labels = candidates[:4, cells[best]].T, scores[best], labels[best]
    kept = batched_nms(boxes, scores, labels, MOST_OVERLAP)[:MOST_BOXES]
    return torch.cat([boxes[kept], scores[kept, None], labels[kept, None].float()], 1)


def judged(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> Detected:
    """Figures of answers (D, 6) from `picked` to targets (M, 5) of class and corners, an array of each for an image."""
    classes = sorted({int(label) for boxes in wanted for label in boxes[:, 0]})
    curves = {label: _curve(label, found, wanted) for label in classes}
    precision, recall = np.stack([_at_confidences(curve) for curve in curves.values()], 1)  # (classes, confidences)
    best = int((2 * precision * recall / np.maximum(precision + recall, 1e-9)).mean(0).argmax())
    return Detected(
        precision=float(precision[:, best].mean()),
        recall=float(recall[:, best].mean()),
        average_precision={label: _average_precision(curve) for label, curve in curves.items()},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Curve:
    """All answers of one class, best first: scores (D,), hits (10, D) at each overlap, and the number of true boxes."""

    scores: np.ndarray
    hits: np.ndarray
    count: int


def _curve(label: int, found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> _Curve:
    scores, hits = zip(*_matches(label, found, wanted), strict=True)
    joined = np.concatenate(scores)
    order = np.argsort(-joined, kind="stable")
    count = sum(int((boxes[:, 0] == label).sum()) for boxes in wanted)
    return _Curve(scores=joined[order], hits=np.concatenate(hits, 1)[:, order], count=count)


def _matches(
    label: int, found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for answers, boxes in zip(found, wanted, strict=True):
        own = answers[answers[:, 5] == label]
        yield own[:, 4], matched(overlaps(own[:, :4], boxes[boxes[:, 0] == label, 1:]))


def matched(shared: np.ndarray) -> np.ndarray:
    """Which answers hit, (10, D), from overlaps (D, M): the best first, each takes the free box that it covers best."""
    hits = np.zeros((len(OVERLAPS), len(shared)), dtype=bool)
    if not shared.size:
        return hits
    for row, least in zip(hits, OVERLAPS, strict=True):
        free = np.ones(shared.shape[1], dtype=bool)
        for answer in np.flatnonzero(shared.max(1) >= least):
            box = int(np.where(free, shared[answer], -1).argmax())
            if free[box] and shared[answer, box] >= least:
                free[box], row[answer] = False, True
    return hits


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(D, 4) and (M, 4) corners to (D, M): the shared area as a fraction of the area of both together."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def _average_precision(curve: _Curve) -> np.ndarray:
    """(10,), one for each overlap."""
    hits = curve.hits.cumsum(1)  # (10, D)
    recall = hits / curve.count
    precision = hits / np.arange(1, hits.shape[1] + 1)
    never_rising = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    padded = np.pad(never_rising, ((0, 0), (0, 1)))  # 0 at recalls that are never reached
    places = [np.searchsorted(row, RECALLS, side="left") for row in recall]
    return np.stack([row[place].mean() for row, place in zip(padded, places, strict=True)])


def _at_confidences(curve: _Curve) -> np.ndarray:
    """(2, confidences): precision, which is 1 of no answers, and recall at an overlap of 0.5."""
    hits = np.insert(curve.hits[0].cumsum(), 0, 0)
    answers = np.searchsorted(-curve.scores, -CONFIDENCES, side="right")
    precision = np.where(answers > 0, hits[answers] / np.maximum(answers, 1), 1.0)
    return np.stack([precision, hits[answers] / curve.count])
