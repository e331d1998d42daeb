"""How well any callable on a batch classifies: macro F1, accuracy, confusion. An exported runtime is such a callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import Batches, InputError

Predict = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to logits (B, num_classes)."""

MANY_CLASSES = 20
"""From so many classes on, the share of images whose class is among the five likeliest is told too."""


@dataclass(frozen=True, kw_only=True)
class Classified:
    """Every prediction of one pass, and the figures that follow from it.

    labels, predictions   (N,) int64
    top5                  share of images whose class is among the five likeliest
    num_classes           outputs of the model
    """

    labels: np.ndarray
    predictions: np.ndarray
    top5: float
    num_classes: int

    @property
    def num_images(self) -> int:
        """How many images were judged."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Share of images whose class was predicted."""
        return float((self.labels == self.predictions).mean())

    @property
    def f1(self) -> float:
        """Mean of the F1 of the classes that occur among labels or predictions (macro F1)."""
        from sklearn.metrics import f1_score

        return float(f1_score(self.labels, self.predictions, average="macro", zero_division=0))

    @property
    def class_f1(self) -> np.ndarray:
        """(num_classes,) F1 of each class; 0 for one that never occurs."""
        from sklearn.metrics import f1_score

        classes = range(self.num_classes)
        return f1_score(self.labels, self.predictions, labels=classes, average=None, zero_division=0)

    @property
    def confusion(self) -> np.ndarray:
        """(num_classes, num_classes) counts: row the label, column the prediction."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predictions, labels=range(self.num_classes))

    def quality(self) -> dict[str, float]:
        """What a `Row` says: macro F1, accuracy, and for many classes the top-5 share."""
        figures = {"f1": self.f1, "accuracy": self.accuracy}
        return figures | {"top5": self.top5} if self.num_classes >= MANY_CLASSES else figures


def classify(predict: Predict, batches: Batches) -> Classified:
    """Run `predict` over all batches. `InputError` when there are none, or when a logit is not a number."""
    labels, predictions, among_five, num_classes = [], [], 0, 0
    with torch.inference_mode():
        for images, wanted in batches:
            logits = predict(images).cpu()
            if not torch.isfinite(logits).all():
                raise InputError("the model answers with values that are not numbers: its weights are damaged")
            num_classes = logits.shape[1]
            likeliest = logits.topk(min(5, num_classes), dim=1).indices  # (B, 5)
            among_five += int((likeliest == wanted[:, None]).any(1).sum())
            predictions.append(likeliest[:, 0].numpy())
            labels.append(wanted.numpy())
    if not labels:
        raise InputError("there are no images to judge on")
    seen, said = np.concatenate(labels), np.concatenate(predictions)
    return Classified(labels=seen, predictions=said, top5=among_five / len(seen), num_classes=num_classes)


def predictor(model: nn.Module, device: str = "cpu") -> Predict:
    """`model` as a callable in evaluation mode on `device`; its own mode is put back after every batch."""

    def predict(images: Tensor) -> Tensor:
        training = model.training
        model.to(device).eval()
        try:
            return model(images.to(device)).float()
        finally:
            model.train(training)

    return predict
