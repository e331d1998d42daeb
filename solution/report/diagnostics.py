"""Finished checkpoints judged once more with every answer kept: by class, by confusion, by image."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
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
from solution.graph.observe import observe
from solution.report.classes import chosen, class_f1, confusion, embed, embedding, predictions
from solution.report.sections import Photo, Section
from solution.report.style import Drawing

SPLIT = ("val_share", "split_seed", "folds", "fold")
"""The settings of the data that say which pictures are val."""

_BATCH = 256
NUM_WORST = 24
"""Photos that the page shows of those that the net gets wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """One model's answers to all images.

    judged         labels, predictions and the figures that follow
    probabilities  (N, C) float32
    features       (N, F) float32: inputs of the last layer with weights
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
    last: dict[str, Tensor] = {}
    predict = predictor(model, device)
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}

    def keep(path: str, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        last["inputs"] = inputs[0]

    def remembered(images: Tensor) -> Tensor:
        answer = predict(images)
        logits.append(answer.cpu())
        features.append(_flat(last.get("inputs", answer)).float().cpu())
        return answer

    with observe(layers, before=keep):
        judged = classify(remembered, batches)
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
            known, found = (", ".join(names) for names in (own.classes, source.classes))
            raise InputError(f"{paths[role]} knows the classes {known}; {data} has {found}: name other pictures")
    items, seen = opened.parts(source)[0]["val"], {}
    for role, (model, own) in loaded.items():
        shown = decode_once(source, items, own.size)
        seen[role] = see(model, plain_loader(shown, _BATCH, (own.mean, own.std)), device)
    pictures = decode_once(source, items, max(own.size for _, own in loaded.values()))
    return Look(classes=source.classes, data=opened.info().title, pictures=pictures, seen=seen)


def data_uri(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 as a JPEG that a page can hold in itself."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(target, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()


def diagnostics(look: Look) -> list[Section]:
    """Class by class, features, worst images."""
    return [_classes(look), _features(look), _worst(look)]


def _classes(look: Look) -> Section:
    count = len(look.classes)
    judged = {role: seen.judged for role, seen in look.seen.items()}
    labels = np.bincount(look.pictures.labels, minlength=count) / len(look.pictures.labels)
    shares = {role: np.bincount(one.predictions, minlength=count) / one.num_images for role, one in judged.items()}
    drawings = (
        class_f1({role: one.per_class_f1 for role, one in judged.items()}, look.classes),
        predictions({"labels": labels, **shares}, look.classes),
        *(confusion(one.confusion, look.classes, role) for role, one in judged.items()),
    )
    text = f"Judged now on the {len(look.pictures.labels):,} images of the val split of {look.data}, as they are."
    return Section(id="classes", title="Class by class", texts=(text,), drawings=drawings)


def _features(look: Look) -> Section:
    places = chosen(look.pictures.labels)
    text = "The classifier's inputs in two dimensions by t-SNE: near images look alike to the model; axes mean nothing."
    drawings = tuple(_embedded(look, role, places) for role in look.seen)
    return Section(id="features", title="Features by class", texts=(text,), drawings=drawings)


def _embedded(look: Look, role: str, places: np.ndarray) -> Drawing:
    points = embed(look.seen[role].features[places])
    return embedding(points, look.pictures.labels[places], look.classes, role)


def _worst(look: Look) -> Section:
    role = list(look.seen)[-1]
    places = look.seen[role].worst(NUM_WORST)
    text = (
        f"The photos to whose label {role.capitalize()} gives the lowest probability: some are unclear or mislabeled."
    )
    photos = tuple(_photo(look, int(place)) for place in places)
    return Section(id="worst", title="Worst images", texts=(text,) if photos else ("No mistakes.",), photos=photos)


def _photo(look: Look, place: int) -> Photo:
    picture, label = look.pictures.images[place], look.classes[look.pictures.labels[place]]
    answers = []
    for role, seen in reversed(list(look.seen.items())):
        likeliest = int(seen.judged.predictions[place])
        answers.append(f"{role.capitalize()}: {look.classes[likeliest]}, {seen.probabilities[place, likeliest]:.0%}")
    alt = f"Photo labeled {label}. {'; '.join(answers)}."
    name = look.pictures.items[place].title
    return Photo(source=data_uri(picture), side=len(picture), alt=alt, lines=(f"Label: {label}", *answers), name=name)
