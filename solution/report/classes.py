"""Class by class: confusion, F1 before and after, and how often each class is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from solution.report.style import HUES, MARKERS, Drawing, canvas, color, drawn, quiet

MAX_ROWS = 20
"""Classes that one drawing has room for; of more, those that differ most are shown."""


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
        return drawn(figure, f"confusion-{role}", _told_confusion(counts, classes, role))


def _square(row: int, column: int, box: Mapping[str, object]) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, **box)


def _told_confusion(counts: np.ndarray, classes: Sequence[str], role: str) -> str:
    wrong = counts * (1 - np.eye(len(classes), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None)[:3]
    pairs = [np.unravel_index(place, wrong.shape) for place in order if wrong.flat[place]]
    said = ", ".join(f"{classes[row]} taken for {classes[column]} {counts[row, column]} times" for row, column in pairs)
    right = int(np.trace(counts))
    return (
        f"Confusion matrix of {role}: {right} of {int(counts.sum())} images right; most often {said or 'no mistake'}."
    )


def class_f1(scores: Mapping[str, np.ndarray], classes: Sequence[str]) -> Drawing:
    """{"before": (C,) F1, "after": ...}, one line per class, the best of the last at the top."""
    caption = "The longer the bar between the marks, the more a class gained or lost."
    return _dots(scores, classes, name="class-f1", axis="F1 of the class", caption=caption)


def predictions(shares: Mapping[str, np.ndarray], classes: Sequence[str]) -> Drawing:
    """{"labels": (C,) shares of the images, "before": ..., "after": ...}: how often each class is said."""
    caption = "A model without bias says each class about as often as it occurs among the labels."
    percent = {role: 100 * values for role, values in shares.items()}
    return _dots(percent, classes, name="predictions", axis="percent of the images", caption=caption)


def _dots(values: Mapping[str, np.ndarray], classes: Sequence[str], *, name: str, axis: str, caption: str) -> Drawing:
    table = np.stack(list(values.values()))  # (roles, C)
    spans = table.max(axis=0) - table.min(axis=0)
    chosen = np.sort(np.argsort(-spans, kind="stable")[:MAX_ROWS])
    order = chosen[np.argsort(table[-1, chosen], kind="stable")]
    with canvas(1.1 + 0.27 * len(order)) as (figure, axes):
        rows = range(len(order))
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
        return drawn(figure, name, _told_dots(values, classes, axis), caption + only)


def _look(role: str, index: int) -> dict[str, object]:
    if role == "labels":
        return {"marker": "|", "s": 140, "color": color("ink"), "linewidth": 2}
    if role == "before":
        return {"marker": "s", "s": 42, "facecolor": color("paper"), "edgecolor": color("before"), "linewidth": 1.8}
    if role == "after":
        return {"marker": "D", "s": 42, "color": color("after")}
    return {"marker": MARKERS[index % len(MARKERS)], "s": 42, "color": color(HUES[index % len(HUES)])}


def _told_dots(values: Mapping[str, np.ndarray], classes: Sequence[str], axis: str) -> str:
    lines = []
    for place, name in enumerate(classes[:MAX_ROWS]):
        lines.append(f"{name} " + ", ".join(f"{role} {line[place]:.3g}" for role, line in values.items()))
    return f"{axis.capitalize()}, by class: " + "; ".join(lines) + "."
