"""Judge finished checkpoints once more, and keep what a figure hides: every answer, its certainty, the features."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution import checkpoint
from solution.contracts import Batches, InputError
from solution.data.decode import Cached, decode_once
from solution.data.loaders import Data
from solution.data.views import plain_loader
from solution.evaluate.classify import Classified, classify, predictor

SPLIT = ("val_share", "split_seed", "folds", "fold")
"""The settings of the data that say which pictures are val."""

_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """One model's answers to all images.

    judged         labels, predictions and the figures that follow
    probabilities  (N, C) float32
    features       (N, F) float32: what the last layer with weights was given
    """

    judged: Classified
    probabilities: np.ndarray
    features: np.ndarray

    def losses(self) -> np.ndarray:
        """(N,) cross-entropy of each image: how sure the model was of something else."""
        right = self.probabilities[np.arange(self.judged.num_images), self.judged.labels]
        return -np.log(np.maximum(right, 1e-12))

    def worst(self, count: int) -> np.ndarray:
        """Positions of the wrongly classified images with the highest loss, the worst first."""
        wrong = np.flatnonzero(self.judged.labels != self.judged.predictions)
        return wrong[np.argsort(-self.losses()[wrong], kind="stable")][:count]


def see(model: nn.Module, batches: Batches, device: str = "cpu") -> Predictions:
    """Run `model` over all batches and keep its answers."""
    logits, features = [], []
    predict, last = predictor(model, device), {}
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: last.update(inputs=inputs[0])) for layer in layers]

    def remembered(images: Tensor) -> Tensor:
        answer = predict(images)
        logits.append(answer.cpu())
        features.append(_flat(last.get("inputs", answer)).float().cpu())
        return answer

    try:
        judged = classify(remembered, batches)
    finally:
        for hook in hooks:
            hook.remove()
    return Predictions(
        judged=judged, probabilities=torch.cat(logits).softmax(1).numpy(), features=torch.cat(features).numpy()
    )


def _flat(features: Tensor) -> Tensor:
    """(B, C, H, W) or (B, F) to (B, C) or (B, F): the mean over places."""
    return features.flatten(2).mean(2) if features.dim() > 2 else features


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """The models of a run, {"before": ..., "after": ...}, on the pictures of one val split."""

    classes: tuple[str, ...]
    data: str
    pictures: Cached
    seen: Mapping[str, Predictions]


def look(paths: Mapping[str, Path], data: str, settings: Mapping[str, Any], device: str = "cpu") -> Look:
    """{role: checkpoint} judged on the val split of `data`, made as the run of `settings` made it.

    Raises `InputError` when a checkpoint knows other classes than the data have.
    """
    loaded = {role: checkpoint.load(path) for role, path in paths.items()}
    split = {name: settings[f"data.{name}"] for name in SPLIT if f"data.{name}" in settings}
    opened = Data(path=data, **split)
    source = opened.source()
    for role, (_, own) in loaded.items():
        if own.classes != source.classes:
            raise InputError(
                f"{paths[role]} knows the classes {_list(own.classes)}; {data} has {_list(source.classes)}"
            )
    items, seen = opened.parts(source)[0]["val"], {}
    for role, (model, own) in loaded.items():
        shown = decode_once(source, items, own.size)
        seen[role] = see(model, plain_loader(shown, _BATCH, (own.mean, own.std)), device)
    pictures = decode_once(source, items, max(own.size for _, own in loaded.values()))
    return Look(classes=source.classes, data=opened.info().title, pictures=pictures, seen=seen)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def data_uri(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 as a JPEG that a page can hold in itself."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(target, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()
