"""The picture of a sensitivity table: lines of F1 against the pruned share, and what every layer loses, as a map."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from solution.compress.sensitivity import by_ratio
from solution.runtime import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

NAMED = 5
"""So many of the most sensitive layers stand out among the lines and have their names beside them."""
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
        look = {"color": FAINT, "linewidth": 1.0, "zorder": 1}
        if rank is not None:
            look = {"color": HUES[rank], "marker": MARKERS[rank], "linewidth": 1.8, "label": layer, "zorder": 2}
        left = values.dropna()
        axes.plot([0, *left.index * 100], [whole, *left], **look)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    below = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "frameon": False}
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
