"""A detector made small in every way: half precision, pruned weights and channels, shared weights, int8, runtimes.

    python -m solution run detector_yolov8n --data coco128.tar
    python -m solution run detector_yolov8n --data coco128.tar --weights yolov8n.safetensors
    python -m solution run detector_ssdlite_coco --data coco128.tar
    python -m solution run detector_ssdlite --data my_boxes/

The first takes YOLOv8n with ultralytics' own weights, which that library (extra `detection`, AGPL-3.0) downloads; the
second with the weights of a file, in ultralytics' names, batch norms folded. The others take torchvision's SSDLite on
MobileNetV3 without that extra: with torchvision's weights for COCO, which it downloads, or from random ones for a set
of any classes. From COCO128's 128 pictures alone it learns next to nothing: that wants a larger set.

Weights are pruned by 5 and 10 %, as published, and on to where mAP breaks, counted from those that are not zero yet: a
net whose weights were rounded before has zeros already. A cut net trains on for 15 epochs. Smaller pictures cost a
convolutional net nothing but detail: After is the net as it came, on three quarters of the side.

Expected of YOLOv8n on COCO128's val, seed 0, with weights that were rounded before: mAP50-95 0.421; float16 0.421,
clusters 0.416, int8 in OpenVINO 0.420; a tenth of the MACs out 0.328, and 0.360 after 15 epochs on 128 pictures, which
are too few; pictures of 480 px 0.415, in int8 0.406. Time: about an hour on one core.

The figures that a team published are almost surely of COCO128's own 128 pictures; full COCO gives other ones, so
neither is compared with that. Nothing that it called compressed was stored so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from solution.compress.channels.step import PruneChannels
from solution.compress.cluster import Cluster
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Quantize
from solution.contracts import ModelSettings, Recipe, Row, Stage, Step
from solution.data.detection import DetectionData
from solution.models.ssdlite import SsdLite
from solution.models.weights import OWN
from solution.models.yolo import Yolo
from solution.report.plots import CostLine, costs_drawing
from solution.report.sections import Findings
from solution.report.style import DASHES, HUES, MARKERS, Drawing, canvas, color, drawn, quiet
from solution.report.tables import Table
from solution.run_folder import Run, machines
from solution.train.pretraining import Unchanged
from solution.train.step import TrainDetector

PERCENTS = (5, 10, 15, 20, 30, 40, 50)


def recipe() -> Recipe:
    """YOLOv8n."""
    return _recipe(
        "detector_yolov8n", Yolo(name="yolov8n", weights=OWN), DetectionData(calibration_images=128), Unchanged(), 480
    )


def ssdlite() -> Recipe:
    """SSDLite, trained first."""
    base = TrainDetector(epochs=120, lr=1e-3)
    return _recipe("detector_ssdlite", SsdLite(), DetectionData(size=320, calibration_images=128), base, 256)


def ssdlite_coco() -> Recipe:
    """SSDLite with torchvision's weights."""
    model, data = SsdLite(weights=OWN), DetectionData(size=320, calibration_images=128)
    return _recipe("detector_ssdlite_coco", model, data, Unchanged(), 256)


def _recipe(name: str, model: ModelSettings, data: DetectionData, base: Step, side: int) -> Recipe:
    """`side`: of the smaller pictures, in pixels."""
    return Recipe(
        name=name,
        data=data,
        model=model,
        stages=(
            Stage(name="original", step=base),
            Stage(name="float16", step=Quantize(scheme="float16", other_dtype="float16"), after="original"),
            *_pruned("global"),
            *_pruned("local"),
            Stage(name="clustered", step=Cluster(bits=7), after="original"),
            # A few huge inputs are cut off, and mean errors are mostly theirs: undone everywhere, they cost 0.15 mAP.
            Stage(name="int8", step=Quantize(scheme="int8", activations=8, correct_bias=False), after="original"),
            Stage(name="cut", step=_cut(), after="original"),
            # Without norms, and with few pictures: a rate ten times as high makes the cut net worse than it was.
            Stage(name="cut_tuned", step=TrainDetector(epochs=15, lr=2e-5)),
            Stage(name="smaller", step=Unchanged(), after="original", size=side),
        ),
        before="original",
        after="smaller",
        thorough=True,
        exports=("onnxruntime", "openvino", "openvino int8"),
        report=report,
    )


def _cut() -> PruneChannels:
    """A tenth of the MACs, where the fewest answers are: equal shares of all layers cost a detector far more."""
    return PruneChannels(macs="90%", ranking="global", importance="activation", reconstruct=True)


def _pruned(scope: str) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            name=f"{scope}_{percent}",
            step=PruneWeights(sparsity=percent / 100, more=True, scope=scope),
            after="original",
        )
        for percent in PERCENTS
    )


QUALITY = ("precision", "recall", "map50", "map")
COLUMNS = ("precision", "recall", "mAP50", "mAP50-95")
SCOPES = ("global", "local")
EAGER = "eager"


@dataclass(frozen=True, kw_only=True)
class PublishedDetector:
    """One published net: quality in the order of `QUALITY`, ms and MB as written; `ours` is the line to compare."""

    quality: tuple[float, float, float, float]
    ms: float
    megabytes: float
    ours: str


PUBLISHED: Mapping[str, PublishedDetector] = MappingProxyType(
    {
        "original": PublishedDetector(quality=(0.639, 0.536, 0.604, 0.445), ms=250, megabytes=12.08, ours="original"),
        "PTQ float16": PublishedDetector(quality=(0.650, 0.532, 0.605, 0.452), ms=230, megabytes=12.08, ours="float16"),
        "global pruning": PublishedDetector(
            quality=(0.632, 0.538, 0.606, 0.446), ms=255, megabytes=12.08, ours="global_10"
        ),
        "local pruning": PublishedDetector(
            quality=(0.646, 0.528, 0.607, 0.446), ms=261, megabytes=12.08, ours="local_5"
        ),
        "weight clustering": PublishedDetector(
            quality=(0.655, 0.496, 0.591, 0.432), ms=260, megabytes=12.02, ours="clustered"
        ),
        "ONNX": PublishedDetector(
            quality=(0.651, 0.532, 0.606, 0.452), ms=271.8, megabytes=12.23, ours="original, onnxruntime"
        ),
        "OpenVINO": PublishedDetector(
            quality=(0.651, 0.532, 0.606, 0.452), ms=226.3, megabytes=12.12, ours="original, openvino"
        ),
    }
)

ORIGINAL = "original"
"""The step that all others are compared with."""

LOST = 0.01
"""mAP50-95 that a net may lose and still count as good as the original."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One line: a net in a runtime. num_bytes: of the file as stored; packed_bytes: of the packed file, if any."""

    row: Row
    runtime: str
    quality: Mapping[str, float]
    num_bytes: float
    packed_bytes: int | None

    @property
    def name(self) -> str:
        """The step, and the runtime where that is not PyTorch."""
        return self.row.step if self.runtime == EAGER else f"{self.row.step}, {self.runtime}"

    @property
    def ms(self) -> float | None:
        """Median latency of one image."""
        return self.row.latency_ms.get(self.runtime)


STEPS: Mapping[str, str] = MappingProxyType(
    {
        "original": "the net that all others are compared with",
        "float16": "weights in half precision",
        "global_N": "N % more weights are zero, the smallest of the whole net",
        "local_N": "N % more in every layer alike",
        "clustered": "128 shared values for each layer's weights",
        "int8": "weights and inputs in eight bits, simulated in PyTorch",
        "cut": "channels removed, a tenth of the MACs",
        "cut_tuned": "that net trained on for 15 epochs",
        "smaller": "the original on smaller pictures",
    }
)


def report(runs: Mapping[str, Run], slug: str = "") -> Findings:
    """Published beside measured, every net in every form, the curve of pruning; of several seeds the first."""
    if not runs:
        return Findings()
    run = next(iter(runs.values()))
    tables: tuple[Table, ...] = detector_tables(run)
    if run.rows[0].step == ORIGINAL:
        tables = (published_table(run), *tables)
    drawings = {"pruning": pruning_drawing, "costs": cost_drawing}
    names = {kind: f"{kind}-{slug}" if slug else kind for kind in drawings}
    return Findings(
        tables=tables,
        texts=tuple(detector_findings(run)),
        drawings={f"{names[kind]}.svg": draw(run, names[kind]) for kind, draw in drawings.items()},
        steps=STEPS,
    )


def shown(rows: Sequence[Row]) -> list[Shown]:
    """Every net, each followed by its exported forms."""
    found = []
    for row in rows:
        found.append(
            Shown(row=row, runtime=EAGER, quality=row.quality, num_bytes=row.bytes, packed_bytes=row.packed_bytes)
        )
        for runtime, file in row.exported.items():
            found.append(Shown(row=row, runtime=runtime, quality=file, num_bytes=file["bytes"], packed_bytes=None))
    return found


def detector_tables(run: Run) -> tuple[Table, Table]:
    """One line per net and runtime: quality, then cost."""
    quality, costs = [], []
    for one in shown(run.rows):
        row, packed = one.row, one.packed_bytes
        names = (*QUALITY, *(f"train_{name}" for name in QUALITY))
        quality.append((one.name, *(_number(one.quality.get(name), "{:.3f}") for name in names)))
        figures = (f"{one.num_bytes / 1e6:.2f}", _number(packed and packed / 1e6, "{:.2f}"), _number(one.ms, "{:.1f}"))
        costs.append((one.name, *figures, f"{row.sparsity:.2f}", f"{row.macs:,}", f"{row.seconds / 60:.1f}"))
    headings = ("net", *(f"{name}, val" for name in COLUMNS), *(f"{name}, train" for name in COLUMNS))
    return (
        Table(headings=headings, rows=tuple(quality), caption="How well every net and every exported form detects."),
        Table(
            headings=("net", "MB", "MB packed", "p50 ms", "sparsity, %", "MACs", "minutes"),
            rows=tuple(costs),
            caption="What the same nets and forms cost.",
            note=" ".join(_notes(run)),
        ),
    )


def published_table(run: Run) -> Table:
    """What the team published beside our line of the same name; times are shares of the original's."""
    lines = {one.name: one for one in shown(run.rows)}
    base, first = lines[ORIGINAL], PUBLISHED[ORIGINAL]
    headings = ("net", "ours", "mAP50-95: published", "train", "val", "ms, times the original's: published", "measured",
                "MB: published", "stored", "packed")  # fmt: skip
    cells = []
    for name, theirs in PUBLISHED.items():
        one = lines.get(theirs.ours)
        if one is None:
            continue
        packed = one.packed_bytes
        cells.append(
            (
                name,
                one.name,
                f"{theirs.quality[-1]:.3f}",
                *(_number(one.quality.get(key), "{:.3f}") for key in ("train_map", "map")),
                f"{theirs.ms / first.ms:.2f}",
                _number(one.ms and base.ms and one.ms / base.ms, "{:.2f}"),
                f"{theirs.megabytes:.2f}",
                f"{one.num_bytes / 1e6:.2f}",
                _number(packed and packed / 1e6, "{:.2f}"),
            )
        )
    note = (
        "Published figures are almost surely of COCO128's own 128 pictures (train2017), as our column train; full COCO "
        "gives others, so none of them is compared with it. The published sparsities, 9.98 and 4.99 %, were fractions "
        "there, and the files did not shrink."
    )
    return Table(
        headings=headings,
        rows=tuple(cells),
        caption="What a team published, beside our line of the same kind.",
        note=note,
    )


def _notes(run: Run) -> Iterator[str]:
    first = run.rows[0]
    yield (
        f"Pictures: val and train of {run.data()}. Quality is of the exported file where a runtime is named, which is "
        "left out when its outputs were not those of the net. Nets that were fitted here are not judged on train. p50 "
        "ms: median of one image, one thread, all nets in turns; a net that only simulates integers has none; zeros "
        "cost as much as other weights. MB: the file as stored."
    )
    if first.sparsity > 1:
        yield (
            f"{first.sparsity:.1f} % of the weights were zero from the start: they had been rounded before, which "
            "flatters sparsity, clustering, packed files and int8."
        )
    yield f"Seed {run.seed}; {machines(run.rows)}."


def detector_findings(run: Run) -> list[str]:
    """Answers of the rows to what the published table leaves open."""
    return list(_findings({one.name: one for one in shown(run.rows)}, run.rows[0].step))


def _findings(lines: Mapping[str, Shown], base: str) -> Iterator[str]:
    original = lines[base]
    for name, one in lines.items():
        if one is original or name.startswith(SCOPES):
            continue
        gained = one.quality["map"] - original.quality["map"]
        packed = f" ({one.packed_bytes / 1e6:.2f} packed)" if one.packed_bytes else ""
        yield f"{name}: {one.num_bytes / 1e6:.2f} MB{packed}, mAP50-95 {gained:+.4f} on val."
    plain, small = lines.get(f"{base}, openvino"), lines.get(f"{base}, openvino int8")
    if plain and small and plain.ms and small.ms:
        yield f"int8 in OpenVINO is {plain.ms / small.ms:.2f} times as fast as fp32 there."
    timed = [(one.ms, one) for one in lines.values() if one.ms]
    if original.ms:
        least = original.quality["map"] - LOST
        best_ms, best = min((pair for pair in timed if pair[1].quality["map"] >= least), key=lambda pair: pair[0])
        first_ms, first = min(timed, key=lambda pair: pair[0])
        yield (
            f"The fastest that loses at most {LOST} is {best.name}: {original.ms / best_ms:.1f} times as fast as the "
            "original in PyTorch eager."
        )
        if first is not best:
            yield f"The fastest of all is {first.name}: {original.ms / first_ms:.1f} times as fast."


def pruning_drawing(run: Run, name: str = "pruning") -> Drawing:
    """mAP50-95 on val against the share of zeros, pruned globally and in each layer alike."""
    base = run.rows[0]
    series = {scope: [row for row in run.rows if row.step.startswith(f"{scope}_")] for scope in SCOPES}
    with canvas(3.6) as (figure, axes):
        axes.axhline(base.quality["map"], color=color("faint"), linewidth=1, linestyle=":")
        for index, (scope, rows) in enumerate(series.items()):
            points = sorted([(row.sparsity, row.quality["map"]) for row in (base, *rows)])
            axes.plot(*zip(*points, strict=True), DASHES[index], marker=MARKERS[index], color=color(HUES[index]),
                      markersize=5, label=scope)  # fmt: skip
        axes.set(xlabel="weights that are zero, %", ylabel="mAP50-95 on val", ylim=(0, None))
        quiet(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        return drawn(figure, name, _alt(base, series), "The dotted line is the original. No net was fine-tuned.")


def _alt(base: Row, series: Mapping[str, Sequence[Row]]) -> str:
    lines = [f"{scope}: {', '.join(_point(row) for row in rows)}" for scope, rows in series.items() if rows]
    return f"mAP50-95 against sparsity. Original {_point(base)}; {'; '.join(lines)}."


def _point(row: Row) -> str:
    return f"{row.quality['map']:.3f} at {row.sparsity:.0f} %"


def cost_drawing(run: Run, name: str = "costs") -> Drawing:
    """Size, quality and latency of every net and form that is not on the way of the curve of pruning."""
    lines = []
    for one in shown(run.rows):
        if not one.row.step.startswith(tuple(f"{scope}_" for scope in SCOPES)):
            packed = one.packed_bytes and one.packed_bytes / 1e6
            size, worth = one.num_bytes / 1e6, one.quality["map"]
            lines.append(CostLine(name=one.name, packed=packed, megabytes=size, quality=worth, ms=one.ms))
    return costs_drawing(lines, "mAP50-95 on val", name)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
