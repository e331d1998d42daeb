"""Drawings of a search: how the score fell, macro F1 against MACs, and what the score depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from solution.evaluate.score import Scorer
from solution.report.front import Point, Series, pareto
from solution.report.style import Drawing, canvas, color, drawn, quiet
from solution.search.study import Tried

_OUTLIER = 1.3
"""Scores are shown up to so many times the one that a tenth of them exceed."""


def history_drawing(lines: Sequence[Tried]) -> Drawing:
    """Score of each trial in the order of their numbers, and the best so far."""
    scored = {line.number: line.score for line in lines if line.score is not None}
    done = [line for line in lines if line.state == "complete" and line.number in scored]
    resting = [line for line in lines if line.state == "resting" and line.number in scored]
    scores = [scored[line.number] for line in (*done, *resting)]
    best = np.minimum.accumulate([scored[line.number] for line in done])
    top = _OUTLIER * float(np.quantile(scores, 0.9))
    hidden = sum(score > top > 0 for score in scores)
    with canvas(3.6) as (figure, axes):
        axes.scatter([t.number for t in resting], [t.score for t in resting], 16, facecolor="none",
                     edgecolor=color("before"), label=f"resting, at its last rung ({len(resting)})")  # fmt: skip
        axes.scatter([t.number for t in done], [t.score for t in done], 22, color=color("after"),
                     label=f"trained to the end ({len(done)})")  # fmt: skip
        axes.step([line.number for line in done], best, where="post", color=color("ink"), label="best so far")
        if top > 0:
            axes.set_ylim(top=min(top, max(scores) + 0.02))
        for state, mark in (("refused", "|"), ("failed", "x")):
            numbers = [line.number for line in lines if line.state == state]
            if numbers:
                axes.plot(numbers, [0.02] * len(numbers), mark, color=color("faint"), clip_on=False,
                          transform=axes.get_xaxis_transform(), label=f"{state} ({len(numbers)})")  # fmt: skip
        quiet(axes)
        axes.set(xlabel="trial", ylabel="score on the dev split")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        first = min(done, key=lambda line: scored[line.number])
        score = scored[first.number]
        said = f"{len(done)} trials trained to the end, the best, {first.number}, with score {score:.4f}"
        above = f" {hidden} far above are not shown." if hidden else ""
        return drawn(figure, "history", said + "." + above, "Lower is better." + above)


def front_drawing(lines: Sequence[Tried], reference: Sequence[Series] = (), scored: bool = False) -> Drawing:
    """Macro F1 against MACs: the trials and their front beside `reference`; with lines of equal score when `scored`."""
    done = [line for line in lines if line.state == "complete"]
    best = min(done, key=lambda line: math.inf if line.score is None else line.score)
    points = tuple(
        Point(macs=line.macs, quality=line.f1, name=f"trial {line.number}" if line is best else "")
        for line in done
        if line.macs is not None and line.f1 is not None
    )
    trials = Series(name="trials (dev split)", points=points, look="after", joined=True)
    return pareto([*reference, trials], name="search-front", scorer=Scorer() if scored else None)


def importance_drawing(weights: Mapping[str, float]) -> Drawing:
    """What share of the score each setting explains."""
    names = list(weights)[::-1]
    with canvas(1.4 + 0.3 * len(weights)) as (figure, axes):
        bars = axes.barh(names, [weights[name] for name in names], color=color("after"))
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9, color=color("faint"))
        quiet(axes, "x")
        axes.set(xlim=(0, 1.3 * max(weights.values())))
        figure.supxlabel("share of the score", fontsize=11)
        said = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
        return drawn(figure, "importance", f"Importance for the score: {said}.", "PED-ANOVA, all together 1.")
