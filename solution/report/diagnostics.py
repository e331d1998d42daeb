"""Finished checkpoints judged once more with every prediction kept: by class, by confusion, by image, and by their
features in two dimensions.
"""

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
from solution.graph import observe
from solution.report.sections import Photo, Section
from solution.report.style import HUES, MARKERS, Drawing, canvas, color, drawn, quiet

MAX_ROWS = 20
"""Classes that one drawing has room for; of more, those that differ most are shown."""
MAX_IMAGES, MAX_CLASSES = 900, 12
"""More marks than these cannot be told apart."""


def confusion(counts: np.ndarray, classes: Sequence[str], role: str) -> Drawing:
    """(C, C) counts, row the label and column the prediction, as percent of each row."""
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    few = len(classes) <= MAX_ROWS
    with canvas(4.7) as (figure, axes):
        for row, column in np.argwhere(shares > 0):
            share = float(shares[row, column])
            box = {"facecolor": color("cell"), "alpha": min(0.12 + 0.88 * share, 1.0), "linewidth": 0}
            axes.add_patch(_square(row, column, box))
            if few and share >= 0.01:
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9)
        axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted", ylabel="labeled", title=f"{role.capitalize()}: percent of each label")
        axes.tick_params(length=0)
        axes.set_yticks(range(len(classes)) if few else [], classes if few else [])
        turned = {"rotation": 45, "rotation_mode": "anchor", "ha": "right"}
        axes.set_xticks(range(len(classes)) if few else [], classes if few else [], **turned)
        return drawn(figure, f"confusion-{role}", _confusion_alt(counts, classes, role))


def _square(row: int, column: int, box: Mapping[str, Any]) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, **box)


def _confusion_alt(counts: np.ndarray, classes: Sequence[str], role: str) -> str:
    wrong = counts * (1 - np.eye(len(classes), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None)[:3]
    pairs = [np.unravel_index(place, wrong.shape) for place in order if wrong.flat[place]]
    wrongly = ", ".join(
        f"{classes[row]} taken for {classes[column]} {counts[row, column]} times" for row, column in pairs
    )
    right, none = int(np.trace(counts)), "no mistake"
    return f"Confusion matrix of {role}: {right} of {int(counts.sum())} images right; most often {wrongly or none}."


def class_f1(scores: Mapping[str, np.ndarray], classes: Sequence[str]) -> Drawing:
    """{"before": (C,) F1, "after": ...}, one line per class, the best of the last at the top."""
    caption = "The longer the bar between the marks, the more a class gained or lost."
    return _dots(scores, classes, name="class-f1", axis="F1 of the class", caption=caption)


def predictions(shares: Mapping[str, np.ndarray], classes: Sequence[str]) -> Drawing:
    """{"labels": (C,) shares of the images, "before": ..., "after": ...}: how often each class is predicted."""
    caption = "A model without bias predicts each class about as often as it occurs among the labels."
    percent = {role: 100 * values for role, values in shares.items()}
    return _dots(percent, classes, name="predictions", axis="percent of the images", caption=caption)


def _dots(values: Mapping[str, np.ndarray], classes: Sequence[str], *, name: str, axis: str, caption: str) -> Drawing:
    table = np.stack(list(values.values()))  # (roles, C)
    spans = table.max(axis=0) - table.min(axis=0)
    chosen = np.sort(np.argsort(-spans, kind="stable")[:MAX_ROWS])
    order = chosen[np.argsort(table[-1, chosen], kind="stable")]
    with canvas(1.3 + 0.27 * len(order)) as (figure, axes):
        rows = range(len(order))
        axes.set_ylim(-0.6, len(order) - 0.4)  # whole marks at the edge, however few the rows
        axes.hlines(rows, table[:, order].min(axis=0), table[:, order].max(axis=0), color=color("grid"), linewidth=4)
        for index, (role, line) in enumerate(zip(values, table, strict=True)):
            axes.scatter(line[order], rows, label=role, zorder=3, **_look(role, index))
        axes.set_yticks(rows, [classes[place] for place in order])
        axes.set_xlabel(axis)
        quiet(axes, "x")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        only = (
            f" Of {len(classes)} classes, the {len(order)} that differ most are shown."
            if len(chosen) < len(classes)
            else ""
        )
        return drawn(figure, name, _dots_alt(values, classes, axis), caption + only)


def _look(role: str, index: int) -> dict[str, object]:
    if role == "labels":
        return {"marker": "|", "s": 140, "color": color("ink"), "linewidth": 2}
    if role == "before":
        return {"marker": "s", "s": 42, "facecolor": color("paper"), "edgecolor": color("before"), "linewidth": 1.8}
    if role == "after":
        return {"marker": "D", "s": 42, "color": color("after")}
    return {"marker": MARKERS[index % len(MARKERS)], "s": 42, "color": color(HUES[index % len(HUES)])}


def _dots_alt(values: Mapping[str, np.ndarray], classes: Sequence[str], axis: str) -> str:
    lines = []
    for place, name in enumerate(classes[:MAX_ROWS]):
        lines.append(f"{name} " + ", ".join(f"{role} {line[place]:.3g}" for role, line in values.items()))
    return f"{axis.capitalize()}, by class: " + "; ".join(lines) + "."


def embed(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N, F) features to (N, 2) by t-SNE (van der Maaten and Hinton, 2008), started from the principal components.

    Fewer than 30 images or 3 features, which t-SNE cannot spread, give the principal components alone.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    num_images, num_features = features.shape
    if num_images < 2:
        return np.zeros((num_images, 2))
    if num_images < 30 or num_features < 3:
        components = min(2, num_images, num_features)
        flat = PCA(components, random_state=seed).fit_transform(features)
        return np.pad(flat, ((0, 0), (0, 2 - components)))
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    with threadpool_limits(1):  # threads that outnumber free cores spin
        return TSNE(perplexity=min(30, num_images / 4), init="pca", random_state=seed).fit_transform(scaled)


def chosen(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Positions, rising, of at most `MAX_IMAGES` images of the `MAX_CLASSES` most frequent labels of (N,) labels."""
    frequent = np.argsort(-np.bincount(labels), kind="stable")[:MAX_CLASSES]
    places = np.flatnonzero(np.isin(labels, frequent))
    return np.sort(np.random.default_rng(seed).permutation(places)[:MAX_IMAGES])


def embedding(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], role: str) -> Drawing:
    """(N, 2) points of (N,) labels; each class has a hue and a marker of its own."""
    found = np.unique(labels)
    with canvas(4.6) as (figure, axes):
        for index, label in enumerate(found):
            own = points[labels == label]
            ink, marker = color(HUES[index % len(HUES)]), MARKERS[index % len(MARKERS)]
            width = 1.2 if marker in "x+" else 0
            axes.scatter(*own.T, 14, marker=marker, color=ink, alpha=0.8, linewidth=width, label=classes[label])
        axes.set(xticks=[], yticks=[], title=f"{role.capitalize()}: features of {len(points)} images")
        axes.spines[:].set_visible(False)
        figure.legend(loc="outside lower left", ncols=3, markerscale=1.6, handletextpad=0.1, columnspacing=1.0)
        nearest = _purity(points, labels)
        caption = f"For {nearest:.0%} of the images the nearest neighbor in this picture has the same label."
        alt = f"Two-dimensional embedding of the features of {role} in {len(found)} classes. {caption}"
        return drawn(figure, f"embedding-{role}", alt, caption)


def _purity(points: np.ndarray, labels: np.ndarray) -> float:
    """Share of the points whose nearest other point has the same label."""
    if len(points) < 2:
        return 1.0
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=-1)  # (N, N)
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(axis=1)] == labels).mean())


SPLIT = ("val_share", "split_seed", "folds", "fold")
"""The settings of the data that decide which pictures are val."""

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
