"""What runs of the waste recipes show besides their steps: published results beside ours, and the score's formula."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from solution.contracts import Row
from solution.evaluate.score import Scorer
from solution.recipes.waste.published import AFTER, BEFORE, PEERS, PUBLISHED, RESULTS, TOLERANCE, UNITS, PublishedScore
from solution.report.front import Point, Series, pareto
from solution.report.sections import Findings
from solution.report.spread import mean, mean_count
from solution.report.tables import Table
from solution.run_folder import ROLES, Run

PICTURE = "front.svg"

STEPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "waste_shufflenet": {
            "train": "ShuffleNet 4,8,4 from scratch, 30 epochs",
            "before": "170 epochs more",
            "prune_layers": "from train: whole units are removed, 2,5,2 stay",
            "after": "170 epochs more",
        },
        "waste_distilled": {
            "distilled": "ShuffleNet 1,2,1 learns from the labels and from the logits of a ResNet-18",
            "after": "batch norms folded into the convolutions: the same outputs for less",
        },
        "waste_four_bits": {
            "start": "the committed After",
            "eight": "3 x 3 layers in eight bits",
            "four": "all others in four bits",
            "distilled": "30 epochs behind these grids, with the logits of start",
            "after": "norms folded, integers stored",
        },
        "waste_teacher": {"pretrain": "ResNet-18 learns another set of pictures", "teacher": "then these photos"},
        "waste_teacher_efficientnet": {
            "probe": "a new classifier on published weights",
            "teacher": "then all layers, gently",
        },
    }
)


def report(runs: Mapping[str, Run], slug: str = "") -> Findings:
    """Step names, and the published results for the plot of cost against quality."""
    recipe = next((run.recipe for run in runs.values()), "")
    return Findings(reference=(PUBLISHED,) if runs else (PUBLISHED, PEERS), steps=STEPS.get(recipe, {}))


def overview(groups: Mapping[str, Mapping[str, Run]]) -> Findings:
    """Before and After of every group among the published results, and every published score by our formula."""
    finished = {name: list(runs.values()) for name, runs in groups.items()}
    series = [_series(name, runs) for name, runs in finished.items() if _judged(runs)]
    return Findings(
        title="The competition: published and measured",
        tables=(_published(finished), _formula()),
        drawings={PICTURE: pareto([PUBLISHED, *series], scorer=Scorer())},
    )


def _judged(runs: Sequence[Run]) -> bool:
    return all("f1" in run.row(role).quality for run in runs for role in ROLES)


def _series(name: str, runs: Sequence[Run]) -> Series:
    points = []
    for role in ROLES:
        rows = [run.row(role) for run in runs]
        macs = statistics.mean(row.macs for row in rows)
        f1 = statistics.mean(row.quality["f1"] for row in rows)
        points.append(Point(macs=macs, quality=f1, name=f"{name.rpartition('/')[2]} {role.capitalize()}"))
    before, after = points
    together = abs(before.macs / after.macs - 1) < 0.05 and abs(before.quality - after.quality) < 0.005
    shown = (after,) if together else (before, after)  # two marks and two words in one place cannot be read
    return Series(name=name, points=shown, joined=True)


def _published(groups: Mapping[str, Sequence[Run]]) -> Table:
    """Before and After as published, beside every measured pair of the same two nets."""
    pairs = {name: runs for name, runs in groups.items() if _macs(runs[0]) == [BEFORE.macs, AFTER.macs]}
    headings = ("", "Before, published", *(f"Before, {name}" for name in pairs))
    headings += ("After, published", *(f"After, {name}" for name in pairs))
    lines = []
    for label, published, measured in (
        ("MACs", lambda result: f"{result.macs:,}", lambda rows: mean_count([row.macs for row in rows])),
        ("macro F1", lambda result: f"{result.f1:.4f}", lambda rows: mean([row.quality.get("f1") for row in rows])),
        ("score", lambda result: f"{result.score:.4f}", lambda rows: mean([row.score for row in rows])),
    ):
        before, after = ([measured(_rows(runs, role)) for runs in pairs.values()] for role in ROLES)
        lines.append((label, published(BEFORE), *before, published(AFTER), *after))
    note = (
        "Published figures are of the competition's private photos: MACs compare one to one, F1 and score of other "
        f"photos do not. The published Before score contradicts the formula, which gives {_score(BEFORE):.4f}."
    )
    caption = (
        "The competition's main result, ShuffleNet v1 with 4,8,4 units before and 2,5,2 after, and our repetition."
    )
    return Table(headings=headings, rows=tuple(lines), caption=caption, note=note)


def _macs(run: Run) -> list[int]:
    return [run.row(role).macs for role in ROLES]


def _rows(runs: Sequence[Run], role: str) -> list[Row]:
    return [run.row(role) for run in runs]


def _score(result: PublishedScore) -> float:
    return Scorer()(result.macs, result.f1)


def _formula() -> Table:
    """Every published score beside the one that our formula gives."""
    lines = []
    for result in (*RESULTS, BEFORE):
        ours = _score(result)
        fits = "yes" if abs(ours - result.score) <= TOLERANCE else "**no**"
        name = " ".join(filter(None, (UNITS.get(result.macs, ""), result.name)))
        lines.append((name, f"{result.macs:,}", f"{result.f1:.4f}", f"{result.score:.4f}", f"{ours:.5f}", fits))
    headings = ("net", "MACs", "macro F1", "published score", "our formula", f"within {TOLERANCE}")
    caption = "The score's formula, recomputed for every published result (score: lower is better)."
    return Table(headings=headings, rows=tuple(lines), caption=caption)
