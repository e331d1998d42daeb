"""Class by class: confusion, F1 before and after, how often each class is predicted, and features in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
