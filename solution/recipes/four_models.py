"""Three techniques on four models and two data sets: pruning, 16 to 1 bit, distillation. A family of cells.

    python -m solution run four_models
    python -m solution run four_models_small --data ../shared/data/cifar10_jpeg.tar.gz --workers 2
    python -m solution run four_models_small --data ../shared/data/mnist.npz --workers 2

The first takes CIFAR-10 and SVHN and wants a GPU; `--data` puts one other set in their place. `_small` takes 5,000
training pictures and 8 epochs: with `--set every.precision=bf16` 75 minutes a data set on one core of a processor that
computes in bfloat16, VGG16 the half of it.

Expected of `_small`, seed 0: on CIFAR-10 (JPEG) 45.6 % (DenseNet-121), 44.4 (ResNet-34), 26.2 (ResNet-50), 43.4
(VGG16), on MNIST 98.4, 98.1, 67.5, 98.7 %; 1 bit is worth most per byte, the student alone per MAC and millisecond.

Nets made for 224 px take 32 px as they are, but for VGG16's head, which would see one pixel 49 times: it sees it once
(`Classifier.pooled`), so that 34 M parameters are left of 134 M, with the same outputs. VGG16 has batch norms, without
which it does not leave chance in a few epochs. A student is its teacher's net with half of the channels and new
weights, once alone and once distilled. No mirror images and turns: half of the data are digits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from solution.compress.channels.step import PruneChannels
from solution.compress.quantize import Convert, Quantize
from solution.contracts import Recipe, Row, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.models.classifiers import Classifier
from solution.report.sections import Findings
from solution.report.style import DASHES, HUES, MARKERS, Drawing, canvas, color, drawn, quiet
from solution.report.tables import Table
from solution.run_folder import History, Run, machines
from solution.train.distillation import Distill
from solution.train.step import Train

if TYPE_CHECKING:
    from matplotlib.axes import Axes


DATA = ("cifar10", "svhn")
MODELS = {
    "densenet121": Classifier(name="torchvision:densenet121"),
    "resnet50": Classifier(name="torchvision:resnet50"),
    "resnet34": Classifier(name="torchvision:resnet34"),
    "vgg16": Classifier(name="torchvision:vgg16_bn", pooled=1),
}


def cells(data: str | None = None) -> dict[str, Recipe]:
    """{"<data set>/<model>": its recipe}: all pictures, 60 epochs and 20 more."""
    return _cells("four_models", data, epochs=60, more=20)


def small(data: str | None = None) -> dict[str, Recipe]:
    """The same with few pictures and epochs."""
    return _cells("four_models_small", data, epochs=8, more=4, most_images=5000)


def _cells(name: str, data: str | None, epochs: int, more: int, most_images: int = 0) -> dict[str, Recipe]:
    stages = _stages(epochs, more)
    return {
        f"{Path(path).name.split('.')[0]}/{model}": Recipe(
            name=name,
            data=Data(
                path=path,
                size=32,
                cache_size=32,
                most_images=most_images,
                augment=Augment(crop_scale=(0.6, 1.0), flip=0.0, quarter_turn=0.0, color=0.2),
            ),
            model=settings,
            stages=stages,
            before="train",
            after="pruned",
            thorough=True,
            report=report,
        )
        for path in ((data,) if data else DATA)
        for model, settings in MODELS.items()
    }


def _stages(epochs: int, more: int) -> tuple[Stage, ...]:
    """`epochs` for what starts afresh, `more` for what goes on from it."""
    train, tune = Train(epochs=epochs, lr=0.05, weight_decay=5e-4), Train(epochs=more, lr=0.02, warmup_epochs=1)
    distilled = Distill(epochs=epochs, lr=0.05, weight_decay=5e-4, teachers=("train",), live=True)
    return (
        Stage(name="train", step=train),
        Stage(name="prune", step=PruneChannels(ratio=0.2)),
        Stage(name="pruned", step=tune),
        Stage(name="bits16", step=Quantize(scheme="float16", other_dtype="float16"), after="train"),
        Stage(name="bits8", step=Quantize(scheme="int8"), after="train"),
        Stage(name="bits4", step=Quantize(scheme="int4"), after="train"),
        Stage(name="signs", step=Quantize(scheme="binary", qat=True, spare=("first", "last")), after="train"),
        Stage(name="signs_train", step=tune),
        Stage(name="bits1", step=Convert()),
        Stage(name="halve", step=PruneChannels(ratio=0.5), after="train"),
        Stage(name="student", step=train, after="halve", fresh=True),
        Stage(name="distilled", step=distilled, after="halve", fresh=True),
    )


BASE = "train"
TECHNIQUES: Mapping[str, str] = MappingProxyType(
    {
        BASE: "as trained",
        "pruned": "pruned by 20 %",
        "bits16": "16 bit",
        "bits8": "8 bit",
        "bits4": "4 bit",
        "bits1": "1 bit",
        "student": "student alone",
        "distilled": "student, distilled",
    }
)
"""{stage: what its row shows}; other stages are on the way."""

CURVES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        BASE: ("as trained", False),
        "pruned": ("pruned by 20 %", True),
        "signs_train": ("1 bit", True),
        "student": ("student alone", False),
        "distilled": ("student, distilled", False),
    }
)
"""{stage that trains: (its name, whether it goes on where the base ended)}."""

_AS_FLOATS = "bits"
"""What the names of steps begin with whose weights run in eager as the floats that they stand for: no faster."""

CHANCE = 0.1
"""Accuracy of guessing: both data sets have ten classes."""


@dataclass(frozen=True, kw_only=True)
class CostFigure:
    """What accuracy is divided by: a figure of a row, in a unit that reads well."""

    name: str
    unit: str

    def of(self, row: Row) -> float | None:
        """In bytes, MACs or milliseconds; None when it was not measured."""
        ms = None if row.step.startswith(_AS_FLOATS) else row.latency_ms.get("eager")
        found = {"byte": row.packed_bytes, "MAC": row.macs, "ms": ms}
        return found[self.name]

    def text(self, row: Row) -> str:
        """ "1.2 MB"."""
        value = self.of(row)
        return "-" if value is None else f"{value / (1 if self.name == 'ms' else 1e6):.4g} {self.unit}"


COSTS = (
    CostFigure(name="byte", unit="MB"),
    CostFigure(name="MAC", unit="million MACs"),
    CostFigure(name="ms", unit="ms"),
)


def report(runs: Mapping[str, Run], slug: str = "") -> Findings:
    """All cells of one data set: techniques, verdict, accuracy against epoch."""
    cells = {name: run for name, run in runs.items() if _row(run, BASE) is not None}
    if not cells:
        return Findings()
    name = f"epochs-{slug}" if slug else "epochs"
    trained = any(run.histories() for run in cells.values())
    return Findings(
        tables=(grid_table(cells), verdict(cells)),
        drawings={f"{name}.svg": epochs_drawing(cells, name)} if trained else {},
        steps=STEPS,
    )


STEPS: Mapping[str, str] = MappingProxyType(
    {
        "as trained": "the net from scratch",
        "pruned by 20 %": "a fifth of the channels removed, then trained on",
        "16, 8, 4 bit": "weights rounded after training",
        "1 bit": "weights are signs, trained on",
        "student": "half of the channels, new weights, alone or with the logits of the net as trained",
    }
)


def grid_table(runs: Mapping[str, Run]) -> Table:
    """One line for each net and technique; sizes are of packed files."""
    headings = ("net", "technique", "accuracy, %", "against the base", "packed MB", "parameters", "MACs", "ms", "min")
    lines = [line for cell, run in runs.items() for line in _lines(cell, run)]
    seeds = ", ".join(dict.fromkeys(str(run.seed) for run in runs.values()))
    hardware = machines(row for run in runs.values() for row in run.rows)
    note = (
        "Accuracy on the val split, differences in points. ms: one image in PyTorch eager, all nets of a cell in "
        "turns, perhaps beside another cell's training, so compare within a cell; quantized weights run there as the "
        "floats that they stand for. Minutes count the steps on the way from "
        f"one line to the next. Seed {seeds}; {hardware}{_missing(runs)}"
    )
    return Table(
        headings=headings,
        rows=tuple(lines),
        caption="Every technique on every net: accuracy, and what it costs.",
        note=note,
    )


def _missing(runs: Mapping[str, Run]) -> str:
    """What unfinished cells still lack, as further sentences."""
    lacking = {
        cell: [name for step, name in TECHNIQUES.items() if _row(run, step) is None] for cell, run in runs.items()
    }
    return "".join(f". Not finished: {cell} lacks {'; '.join(names)}" for cell, names in lacking.items() if names)


def _lines(cell: str, run: Run) -> Iterator[tuple[str, ...]]:
    base, seconds = _row(run, BASE), 0.0
    for row in run.rows:
        seconds += row.seconds
        if row.step not in TECHNIQUES:
            continue
        accuracy = row.quality["accuracy"]
        difference = accuracy - base.quality["accuracy"] if base else math.nan
        packed, ms = row.packed_bytes, row.latency_ms.get("eager")
        yield (
            cell,
            TECHNIQUES[row.step],
            f"{100 * accuracy:.2f}",
            "" if row is base else f"{100 * difference:+.2f}",
            "-" if packed is None else f"{packed / 1e6:.2f}",
            f"{row.params:,}",
            f"{row.macs:,}",
            "-" if ms is None else f"{ms:.2f}",
            f"{seconds / 60:.1f}",
        )
        seconds = 0.0


def verdict(runs: Mapping[str, Run]) -> Table:
    """The best technique by accuracy per byte, per MAC and per millisecond.

    Accuracy counts from chance on: a net that guesses is worth nothing, however small. A technique is judged by what it
    makes of the base's figure in the same cell, in the median over cells: one base that hardly learned decides nothing.
    """
    gains = {(step, cost.name): list(_gains(runs, step, cost)) for step in TECHNIQUES for cost in COSTS}
    medians = {key: statistics.median(found) for key, found in gains.items() if found}
    best = {cost.name: _best(medians, cost) for cost in COSTS}
    lines = []
    for step, technique in TECHNIQUES.items():
        cells = []
        for cost in COSTS:
            median = medians.get((step, cost.name))
            text = "-" if median is None else f"{median:.2f}x"
            cells.append(f"**{text}**" if best[cost.name] == step else text)
        lines.append((technique, *cells))
    note = " ".join(_sentence(runs, cost, winner) for cost in COSTS if (winner := best[cost.name]))
    headings = ("technique", *(f"accuracy per {cost.name}" for cost in COSTS))
    return Table(
        headings=headings,
        rows=tuple(lines),
        caption="What each technique is worth: accuracy above chance for one unit of cost, as times the base.",
        note=note,
    )


def _gains(runs: Mapping[str, Run], step: str, cost: CostFigure) -> Iterator[float]:
    """What `step` makes of the base's accuracy for its cost, in each cell that has both."""
    for run in runs.values():
        worth, before = _worth(_row(run, step), cost), _worth(_row(run, BASE), cost)
        if worth is not None and before:
            yield worth / before


def _worth(row: Row | None, cost: CostFigure) -> float | None:
    """Accuracy above chance for one unit of cost."""
    paid = cost.of(row) if row else None
    return max(row.quality["accuracy"] - CHANCE, 0.0) / paid if row and paid else None


def _best(medians: Mapping[tuple[str, str], float], cost: CostFigure) -> str | None:
    known = {step: medians[step, cost.name] for step in TECHNIQUES if (step, cost.name) in medians}
    return max(known, key=lambda step: known[step]) if known else None


def _sentence(runs: Mapping[str, Run], cost: CostFigure, step: str) -> str:
    """A sentence: the technique that wins, and the single net that is worth most."""
    rows = [(cell, row) for cell, run in runs.items() for row in _shown(run) if _worth(row, cost) is not None]
    cell, row = max(rows, key=lambda pair: _worth(pair[1], cost) or 0.0)
    accuracy = f"{100 * row.quality['accuracy']:.2f} %"
    return (
        f"Per {cost.name}: {TECHNIQUES[step]}; the single net that is worth most is {cell} {TECHNIQUES[row.step]}, "
        f"{accuracy} for {cost.text(row)}."
    )


def _row(run: Run, step: str) -> Row | None:
    return next((row for row in run.rows if row.step == step), None)


def _shown(run: Run) -> list[Row]:
    return [row for row in run.rows if row.step in TECHNIQUES]


def epochs_drawing(runs: Mapping[str, Run], name: str = "epochs") -> Drawing:
    """Accuracy on the dev split against epoch, one panel for each net; what goes on from the base starts there."""
    histories = {cell: run.histories() for cell, run in runs.items()}
    with canvas(0.9 + 2.0 * len(runs), len(runs), sharex=True, sharey=True, squeeze=False) as (figure, grid):
        for axes, (cell, found) in zip(grid[:, 0], histories.items(), strict=True):
            _panel(axes, found)
            axes.set_title(cell)
            quiet(axes)
        grid[-1, 0].set_xlabel("epoch")
        figure.supylabel("accuracy on the dev split, %", fontsize=11)
        figure.legend(*_labels(grid[:, 0]), loc="outside upper left", ncols=2)
        caption = "Pruned and 1-bit nets go on where the base ended; students start afresh."
        return drawn(figure, name, _alt(histories), caption)


def _panel(axes: Axes, found: Mapping[str, History]) -> None:
    start = len(found.get(BASE, {}).get("epoch", ()))
    for index, (stage, (label, goes_on)) in enumerate(CURVES.items()):
        if not found.get(stage, {}).get("dev_accuracy"):
            continue
        epochs = [epoch + goes_on * start for epoch in found[stage]["epoch"]]
        percent = [100 * value for value in found[stage]["dev_accuracy"]]
        marks: dict[str, Any] = {"marker": MARKERS[index], "markersize": 4, "markevery": max(1, len(epochs) // 8)}
        axes.plot(epochs, percent, DASHES[index % len(DASHES)], color=color(HUES[index]), label=label, **marks)


def _labels(panels: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Every line once, whichever panel has it."""
    found: dict[str, Any] = {}
    for axes in panels:
        found |= {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)


def _alt(histories: Mapping[str, Mapping[str, History]]) -> str:
    lines = []
    for cell, found in histories.items():
        ends = (
            f"{label} {100 * max(found[stage]['dev_accuracy']):.1f} %"
            for stage, (label, _) in CURVES.items()
            if found.get(stage, {}).get("dev_accuracy")
        )
        lines.append(f"{cell}: {', '.join(ends)}")
    return "Accuracy against epoch, best epochs on the dev split. " + "; ".join(lines) + "."
