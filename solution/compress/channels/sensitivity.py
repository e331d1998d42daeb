"""Sensitivity: what quality is left when one layer alone is pruned (after Li et al., 2017, arXiv:1608.08710).

    from solution.compress.channels.sensitivity import as_text, sensitivity
    table = sensitivity(model, StepContext(example=x, dev=batches))
    print(as_text(table))

Layers whose channels can only go together (those of one residual stream) are one entry.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from solution.compress.channels.step import PruneChannels
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.components import layers_together
from solution.compress.layers import layers_of
from solution.compress.prune_weights import PruneWeights
from solution.contracts import InputError, Step, StepContext
from solution.evaluate.classify import classify, predictor
from solution.evaluate.cost import macs
from solution.runtime import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

RATIOS = (0.25, 0.5, 0.75)

Alone = Callable[[float], Step]
"""A pruning ratio in (0, 1) -> the step that prunes one entry by it, and nothing else."""


def channels_alone(model: nn.Module, context: StepContext) -> dict[str, Alone]:
    """Entry -> the step that takes out a share of its channels."""
    groups = layers_together(analyze(TraceRequest(model=model, example=context.example)).coupling)
    layers = [layer for group in groups for layer in group]

    def alone(group: tuple[str, ...]) -> Alone:
        limits = {glob.escape(layer): 0.0 for layer in layers if layer not in group}
        return lambda ratio: PruneChannels(ratio=ratio, limits=limits, verify=False)

    return {_label(group): alone(group) for group in groups}


def weights_alone(model: nn.Module, _given: StepContext) -> dict[str, Alone]:
    """Layer -> the step that sets a share of its weights to zero."""

    def alone(layer: str) -> Alone:
        return lambda ratio: PruneWeights(sparsity=ratio, scope="local", layers=(glob.escape(layer),))

    return {layer: alone(layer) for layer in layers_of(model, ("*",), ())[0]}


METHODS: Mapping[str, Callable[[nn.Module, StepContext], dict[str, Alone]]] = {
    "prune_channels": channels_alone,
    "prune_weights": weights_alone,
}


def sensitivity(
    model: nn.Module, context: StepContext, methods: Sequence[str] = tuple(METHODS), ratios: Sequence[float] = RATIOS
) -> DataFrame:
    """One line per method, entry and ratio, in order of execution: f1 and accuracy on the dev split, and MACs.

    Columns: method, layer, ratio, f1, accuracy, macs; ratio 0 is the whole net. Nothing is trained between; batch-norm
    statistics are measured again where calibration batches are given. What cannot be pruned so is logged and left out.
    """
    import pandas as pd

    _check(methods, ratios)
    context.need("dev", "sensitivity")
    whole = _figures(model, context)
    rows = []
    for method in methods:
        for layer, step in METHODS[method](model, context).items():
            rows.append({"method": method, "layer": layer, "ratio": 0.0, **whole})
            rows += [
                {"method": method, "layer": layer, **row} for row in _measured(model, context, layer, step, ratios)
            ]
    if not rows:
        raise InputError(f"{type(model).__name__} has no layer that can be pruned alone: nothing to measure")
    return pd.DataFrame(rows)


def _check(methods: Sequence[str], ratios: Sequence[float]) -> None:
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise InputError(f"methods must be some of {', '.join(METHODS)}, got {', '.join(unknown) or 'none'}")
    wrong = [ratio for ratio in ratios if not 0 < ratio < 1]
    if wrong or not ratios:
        raise InputError(f"ratios must lie between 0 and 1, got {wrong or 'none'}")


def _measured(
    model: nn.Module, context: StepContext, layer: str, step: Alone, ratios: Sequence[float]
) -> Iterator[dict[str, Any]]:
    quiet = dataclasses.replace(context, log=lambda _: None)
    for ratio in ratios:
        try:
            figures = _figures(step(ratio)(model, quiet), context)
        except InputError as error:
            context.log(f"{layer} at {ratio:.0%}: left out, {error}")
            continue
        context.log(f"{layer} at {ratio:.0%}: F1 {figures['f1']:.4f}")
        yield {"ratio": ratio, **figures}


def _figures(model: nn.Module, context: StepContext) -> dict[str, Any]:
    judged = classify(predictor(model, context.device), context.need("dev", "sensitivity"))
    return {"f1": judged.f1, "accuracy": judged.accuracy, "macs": macs(model, context.example)}


def _label(group: tuple[str, ...]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} +{len(group) - 1}"


def as_text(table: DataFrame) -> str:
    """F1 by layer and ratio, one block per method, the whole net's first."""
    parts = []
    for method, some in table.groupby("method", sort=False):
        whole = some[some.ratio == 0].iloc[0]
        wide = by_ratio(some)
        wide.columns = [f"{ratio:.0%}" for ratio in wide.columns]
        parts.append(f"{method}: F1 {whole.f1:.4f} on the dev split as it is\n{wide.to_string(float_format='%.4f')}")
    return "\n\n".join(parts)


def by_ratio(table: DataFrame) -> DataFrame:
    """(layers, ratios) F1 of one method; the layers keep their order, and NaN is what was left out."""
    wide = table[table.ratio > 0].pivot_table(index="layer", columns="ratio", values="f1", sort=False)
    return wide.reindex(columns=sorted(wide.columns))


NAMED = 5
"""So many of the most sensitive layers stand out among the lines and have their names next to them."""
HUES = ("#0072b2", "#d55e00", "#00805d", "#b9558f", "#7a6a00")
MARKERS = ("o", "s", "^", "D", "v")
PAPER, INK, FAINT = "#ffffff", "#1b1f24", "#c3cbd3"


def save_plot(table: DataFrame, path: Path) -> None:
    """Write the picture of `sensitivity`'s table to `path`, a PNG: a row of two panels for each method."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(table.method))
    heights = [max(4.5, 1.2 + 0.2 * table[table.method == method].layer.nunique()) for method in methods]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained", facecolor=PAPER)
    grid = figure.subplots(len(methods), 2, squeeze=False, height_ratios=heights)
    for (lines, losses), method in zip(grid, methods, strict=True):
        some = table[table.method == method]
        _draw_lines(lines, some, method)
        _draw_losses(figure, losses, some)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _draw_lines(axes: Axes, table: DataFrame, method: str) -> None:
    whole, wide = float(table.f1[table.ratio == 0].iloc[0]), by_ratio(table)
    worst = list(wide.min(axis=1).sort_values().index[:NAMED])
    for layer, values in wide.iterrows():
        rank = worst.index(layer) if layer in worst else None
        look: dict[str, Any] = {"color": FAINT, "linewidth": 1.0, "zorder": 1}
        if rank is not None:
            look = {"color": HUES[rank], "marker": MARKERS[rank], "linewidth": 1.8, "label": layer, "zorder": 2}
        left = values.dropna()
        axes.plot([0, *left.index * 100], [whole, *left], **look)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "frameon": False}
    axes.legend([handles[layer] for layer in worst], worst, title="most sensitive, worst first", **below)
    axes.set(xlabel="pruned share of one layer, %", ylabel="macro F1 on the dev split")
    axes.set_xticks([0, *(wide.columns * 100).round(1)])
    axes.set_box_aspect(0.6)
    axes.set_anchor("N")
    axes.set_title(f"{method}: one layer at a time", loc="left", fontweight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e9edf1", zorder=0)
    axes.set_axisbelow(True)


def _draw_losses(figure: Figure, axes: Axes, table: DataFrame) -> None:
    wide = by_ratio(table)
    lost = float(table.f1[table.ratio == 0].iloc[0]) - wide
    top = max(0.01, float(lost.max().max()))
    image = axes.imshow(lost, aspect="auto", cmap="Blues", vmin=0, vmax=top)
    axes.set_xticks(range(len(lost.columns)), [f"{ratio:.0%}" for ratio in lost.columns])
    axes.set_yticks(range(len(lost)), lost.index, fontsize=7)
    axes.tick_params(length=0)
    axes.set_title("F1 lost, layers in order of execution", loc="left", fontweight="bold", color=INK)
    for row, values in enumerate(lost.to_numpy()):
        for column, value in enumerate(values):
            text, ink = "-" if isnan(value) else f"{value:.3f}", PAPER if value > 0.55 * top else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    figure.colorbar(image, ax=axes, shrink=0.6).outline.set_visible(False)
