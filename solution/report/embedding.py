"""The classifier's view in two dimensions: which classes lie together, which lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solution.report.style import HUES, MARKERS, Drawing, canvas, color, drawn

MAX_IMAGES = 900
MAX_CLASSES = 12
"""More marks than these cannot be told apart."""


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
