"""Training curves: one line per stage, one panel per figure."""

from __future__ import annotations

from collections.abc import Mapping

from solution.report.style import DASHES, HUES, Drawing, canvas, color, drawn, quiet
from solution.run_folder import History

PANELS: Mapping[str, str] = {"loss": "training loss", "dev_f1": "macro F1 on the dev split"}


def training_curves(
    histories: Mapping[str, History], panels: Mapping[str, str] = PANELS, name: str = "curves"
) -> Drawing:
    """{stage: history} as lines over epochs, one panel for each column of `panels` that a history has."""
    shown = {column: title for column, title in panels.items() if any(column in some for some in histories.values())}
    with canvas(0.6 + 2.0 * len(shown), len(shown), sharex=True, squeeze=False) as (figure, grid):
        for axes, (column, title) in zip(grid[:, 0], shown.items(), strict=True):
            for index, (stage, history) in enumerate(histories.items()):
                if column in history:
                    ink, dash = _look(stage, index)
                    axes.plot(history["epoch"], history[column], dash, color=ink, label=stage)
            axes.set_title(title)
            quiet(axes)
        grid[-1, 0].set_xlabel("epoch of the stage")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        caption = "One line per stage; kept is the best epoch on the dev split, or the last with keep=last."
        return drawn(figure, name, _alt(histories), caption)


def _look(stage: str, index: int) -> tuple[str, str]:
    known = {"before": (color("before"), "--"), "after": (color("after"), "-")}
    return known.get(stage, (color(HUES[(index + 2) % len(HUES)]), DASHES[(index + 2) % len(DASHES)]))


def _alt(histories: Mapping[str, History]) -> str:
    lines = []
    for stage, history in histories.items():
        best = f", best dev F1 {max(history['dev_f1']):.4f}" if history.get("dev_f1") else ""
        lines.append(f"{stage}: {len(history['epoch'])} epochs, loss {history['loss'][-1]:.3f} at the end{best}")
    return "Training curves. " + "; ".join(lines) + "."
