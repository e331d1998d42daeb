"""Bits of a weight against what they cost: size of the packed file and quality, for several nets, as table and drawing.

A net's rows are those of a run of `benchmarks/bits.py`: the float net's stage is called "base", the others after their
bits, such as "bits4". `zipped.json` next to them holds what plain compression makes of the float net's file.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from solution.contracts import Row
from solution.report.sections import Findings
from solution.report.style import DASHES, HUES, MARKERS, Drawing, canvas, color, drawn, quiet
from solution.report.tables import Table
from solution.run_folder import Run, machines
from solution.runtime import write_text

RECIPE, START, BASE, SPARSE, PREFIX = "bits", "start", "base", "sparse", "bits"
"""The name of such runs, and of their stages."""
PICTURE, ZIPPED = "bits.svg", "zipped.json"
_HEADINGS = (
    "net", "bits", "bytes packed", "fp32 file, zip -9", "bytes a parameter", "times smaller", "macro F1", "points lost",
)  # fmt: skip
_CAPTION = "How small a net becomes in fewer bits of a weight, and what that costs."
_NOTE = "Times smaller: than the float net's checkpoint. Points lost: of macro F1 on val, in percent, against that net."


@dataclass(frozen=True, kw_only=True)
class Net:
    """One net in ever fewer bits.

    base          the float net
    start         the same with the weights that were published, before it was fine-tuned on these pictures; or None
    sparse        the float net after pruning and training on, from which those in fewer bits then come; None without
    fewer         the same net in fewer bits, most bits first
    zipped_bytes  of the float net's checkpoint after zip -9; None where it was not noted
    """

    base: Row
    fewer: Sequence[Row]
    start: Row | None = None
    sparse: Row | None = None
    zipped_bytes: int | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them, in the order of the table."""
        return (*filter(None, [self.start, self.base, self.sparse]), *self.fewer)


Nets = Mapping[str, Net]
"""{name: net}."""


def note_zipped(folder: Path, num_bytes: int) -> None:
    """Note next to the rows in `folder` how many bytes zip -9 leaves of the float net's checkpoint."""
    write_text(folder / ZIPPED, json.dumps({"zipped_bytes": num_bytes}) + "\n")


def _zipped_bytes(folder: Path) -> int | None:
    path = folder / ZIPPED
    return json.loads(path.read_text())["zipped_bytes"] if path.is_file() else None


def nets_of(runs: Mapping[str, Run]) -> Nets:
    """The nets of `runs` whose float form and at least one other are there."""
    nets = {}
    for name, run in runs.items():
        fewer = [row for row in run.rows if row.step.startswith(PREFIX)]
        floats = {row.step: row for row in run.rows if row.step in (START, BASE, SPARSE)}
        if BASE in floats and fewer:
            fewer.sort(key=lambda row: -int(_bits(row)))
            zipped = _zipped_bytes(run.folder)
            nets[name] = Net(**floats, fewer=fewer, zipped_bytes=zipped)
    return nets


def report(runs: Mapping[str, Run], slug: str = "") -> Findings:
    """All nets in one table and one plot, with the command of each."""
    nets = nets_of(runs)
    if not nets:
        return Findings()
    seeds = ", ".join(sorted({str(run.seed) for run in runs.values()}))
    note = f"One run a net, seed {seeds}; {machines(row for run in runs.values() for row in run.rows)}."
    return Findings(
        title="Bits of a weight",
        tables=(bits_table(nets, note),),
        drawings={PICTURE: bits_drawing(nets)},
        commands=tuple(bits_command(run) for run in runs.values()),
    )


def bits_command(run: Run) -> str:
    """The command that makes this run again."""
    settings, last = run.settings, run.rows[-1].step
    words = [
        "python",
        "-m",
        "benchmarks.bits",
        settings.get("start.path") or settings[f"{BASE}.path"],
        settings["data.path"],
    ]
    words += ["--bits", *(_bits(row) for row in run.rows if row.step.startswith(PREFIX))]
    options = {
        "sparsity": "prune_weights.sparsity",
        "epochs": f"{last}.train.epochs",
        "lr": f"{last}.train.lr",
        "weight-decay": f"{last}.train.weight_decay",
        "base-epochs": f"{BASE}.epochs",
        "base-lr": f"{BASE}.lr",
        "ends-from": f"{last}.ends_from",
        "batch": "data.batch_size",
        "most-images": "data.most_images",
        "precision": f"{last}.train.precision",
    }
    for option, key in options.items():
        if settings.get(key) not in (None, "auto"):
            words += [f"--{option}", str(settings[key])]
    return shlex.join([*words, "--seed", str(run.seed)])


def bits_table(nets: Nets, note: str = "") -> Table:
    """One line per net and number of bits, the float net first."""
    rows = [(name, *_cells(row, net)) for name, net in nets.items() for row in net.rows]
    return Table(headings=_HEADINGS, rows=tuple(rows), caption=_CAPTION, note=f"{_NOTE} {note}".rstrip())


def _cells(row: Row, net: Net) -> tuple[str, ...]:
    base, packed = net.base, row.packed_bytes or 0
    return (
        _form(row),
        f"{packed:,}",
        "-" if net.zipped_bytes is None else f"{net.zipped_bytes:,}",
        f"{packed / base.params:.3f}",
        f"{_smaller(row, base):.1f}",
        f"{row.quality['f1']:.4f}",
        "" if row is base else f"{_lost(row, base):+.2f}",
    )


def _form(row: Row) -> str:
    floats = {START: "32, as published", BASE: "32, float", SPARSE: f"32, {row.sparsity:.0f} % zero"}
    return floats.get(row.step) or _bits(row)


def bits_drawing(nets: Nets, name: str = "bits") -> Drawing:
    """How many times smaller the packed file is, against points of macro F1 lost; every mark is named by its bits."""
    with canvas(3.6) as (figure, axes):
        axes.axhline(0, color=color("faint"), linewidth=0.8)
        for index, (called, net) in enumerate(nets.items()):
            ink, marker = color(HUES[index % len(HUES)]), MARKERS[index % len(MARKERS)]
            smaller, lost = ([measure(row, net.base) for row in net.fewer] for measure in (_smaller, _lost))
            axes.plot(smaller, lost, color=ink, marker=marker, linestyle=DASHES[index % len(DASHES)], label=called)
            # Lines fall to the right: words of the first stand above them, those of the others below.
            aside = {"ha": "right", "va": "top"} if index else {"ha": "left", "va": "bottom"}
            offset = (-5, -4) if index else (5, 3)
            for row, x, y in zip(net.fewer, smaller, lost, strict=True):
                axes.annotate(_bits(row), (x, y), offset, textcoords="offset points", fontsize=9, **aside)
        axes.set_xscale("log", base=2)
        axes.set_yscale("symlog", linthresh=1, linscale=0.6)
        axes.set(xlabel="times smaller than the float net's file", ylabel="points of macro F1 lost")
        axes.margins(0.12)
        axes.invert_yaxis()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        quiet(axes, "both")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        caption = "Up and right is better. Numbers are bits of a weight; beyond one point the scale is logarithmic."
        return drawn(figure, name, _alt(nets), caption)


def _bits(row: Row) -> str:
    return row.step.removeprefix(PREFIX)


def _smaller(row: Row, base: Row) -> float:
    return base.bytes / row.packed_bytes if row.packed_bytes else math.nan


def _lost(row: Row, base: Row) -> float:
    return 100 * (base.quality["f1"] - row.quality["f1"])


def _alt(nets: Nets) -> str:
    lines = (
        f"{name} in {_bits(row)} bit{'' if _bits(row) == '1' else 's'}: {_smaller(row, net.base):.1f} times smaller, "
        f"{_lost(row, net.base):.2f} points lost"
        for name, net in nets.items()
        for row in net.fewer
    )
    return f"Size against quality. {'; '.join(lines)}."
