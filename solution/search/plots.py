"""Plots of a search: how the score fell, macro F1 against MACs, and what the score depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.evaluate.score import Scorer
from solution.report.published import RESULTS
from solution.runtime import written_whole
from solution.search.peers import PEERS
from solution.search.study import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from solution.search.outcome import Tried

_INK, _GREY, _BLUE, _ORANGE = "#222222", "#8a8a8a", "#1f5fa8", "#c8621b"
_OUTLIER = 1.3
_SCORES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def plot_history(lines: Sequence[Tried], path: Path) -> Path:
    """Score of each trial in the order of their numbers, and the best so far."""
    figure, axes = _canvas()
    done = [line for line in lines if line.state == "complete"]
    resting = [line for line in lines if line.state == "resting" and line.score is not None]
    axes.scatter([t.number for t in resting], [t.score for t in resting], s=16, facecolors="none", edgecolors=_GREY,
                 label=f"resting, at its last rung ({len(resting)})")  # fmt: skip
    axes.scatter([t.number for t in done], [t.score for t in done], s=22, color=_BLUE,
                 label=f"trained to the end ({len(done)})")  # fmt: skip
    best = np.minimum.accumulate([line.score for line in done])
    axes.step([line.number for line in done], best, where="post", color=_INK, label="best so far")
    scores = [line.score for line in (*done, *resting)]
    top = _OUTLIER * float(np.quantile(scores, 0.9))
    if top > 0:
        axes.set_ylim(top=min(top, max(scores) + 0.02))
    hidden = sum(score > top > 0 for score in scores)
    for state, colour in (("refused", _GREY), ("failed", _ORANGE)):
        numbers = [line.number for line in lines if line.state == state]
        if numbers:
            axes.plot(numbers, [0.02] * len(numbers), "|", color=colour, transform=axes.get_xaxis_transform(),
                      label=f"{state} ({len(numbers)})")  # fmt: skip
    above = f" (far above, not shown: {hidden})" if hidden else ""
    axes.set(xlabel=f"trial{above}", ylabel="score on the choose split (lower is better)")
    return _saved(figure, axes, path)


def plot_front(lines: Sequence[Tried], front: Sequence[Figures], path: Path) -> Path:
    """Macro F1 against MACs: our trials and their front, published points, and lines of equal score."""
    figure, axes = _canvas()
    done = [line for line in lines if line.state == "complete"]
    _points(axes, RESULTS, "s", _GREY, "competition's teams (their own photos)")
    _points(axes, PEERS, "D", _ORANGE, "timm, torchvision, ShuffleNet: 60 plain epochs (recycle9 val)")
    axes.scatter([t.macs / 1e6 for t in done], [t.f1 for t in done], s=22, color=_BLUE, alpha=0.6,
                 label="trials (choose split)")  # fmt: skip
    axes.plot([point.macs / 1e6 for point in front], [point.f1 for point in front], "-o", ms=4, color=_INK,
              label="front of the trials")  # fmt: skip
    macs = [t.macs for t in done] + [point.macs for point in (*RESULTS, *PEERS)]
    quality = [t.f1 for t in done] + [point.f1 for point in (*RESULTS, *PEERS)]
    axes.set_xlim(0, 1.08 * max(macs) / 1e6)
    axes.set_ylim(min(quality) - 0.02, min(1.0, max(*quality, 0.82) + 0.03))
    _equal_scores(axes)
    axes.set(xlabel="MACs of one image, millions (the competition's count)", ylabel="macro F1")
    return _saved(figure, axes, path)


def plot_importance(weights: Mapping[str, float], path: Path) -> Path:
    """What share of the score each setting explains."""
    figure, axes = _canvas(height=1.6 + 0.32 * len(weights))
    names = list(weights)[::-1]
    bars = axes.barh(names, [weights[name] for name in names], color=_BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8, color=_INK)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.12 * max(weights.values()))
    axes.set(xlabel="importance for the score (PED-ANOVA, all together 1)")
    return _saved(figure, axes, path)


def _canvas(height: float = 5.0) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _points(axes: Axes, points: Sequence[Any], marker: str, colour: str, label: str) -> None:
    macs, quality = [point.macs / 1e6 for point in points], [point.f1 for point in points]
    axes.scatter(macs, quality, s=18, marker=marker, color=colour, label=label)
    named = sorted((point for point in points if point.name), key=lambda point: point.macs)
    for index, point in enumerate(named):  # above and below in turns, and not over the right edge
        place = {"xytext": (0, 5 if index % 2 else -10), "ha": "right" if point.macs == max(macs) * 1e6 else "center"}
        at = point.macs / 1e6, point.f1
        axes.annotate(point.name, at, textcoords="offset points", fontsize=7, color=colour, **place)


def _equal_scores(axes: Axes) -> None:
    scorer, (_, right), (low, high) = Scorer(), axes.get_xlim(), axes.get_ylim()
    f1 = np.linspace(max(low, scorer.cliff_f1), high, 200)
    for score in _SCORES:
        macs = np.array([(score - scorer.f1_term(value)) * scorer.reference_macs / 1e6 for value in f1])
        axes.plot(
            macs, f1, color="#cfd8e3", linewidth=0.9, zorder=0, label=None if score > _SCORES[0] else "equal score"
        )
        inside = np.flatnonzero((macs > 0.02 * right) & (macs < 0.97 * right))
        if len(inside):
            axes.annotate(f"{score:g}", (macs[inside[-1]], f1[inside[-1]]), fontsize=7, color="#7d8fa5", ha="center",
                          va="center", bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip


def _saved(figure: Figure, axes: Axes, path: Path) -> Path:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
    with written_whole(path) as temporary:
        figure.savefig(temporary)
    return path
