"""A net as the file that the runtime runs: exported, judged on dev by that runtime, timed in turns, judged on val."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from solution import tasks
from solution.compress.parametrized import materialized
from solution.compress.quantize import Quantize
from solution.contracts import InputError, spec_of
from solution.evaluate.classify import classify
from solution.evaluate.cost import file_bytes, median_latency_ms
from solution.evaluate.speed import Turns, measure
from solution.export import files
from solution.export.exporter import ExportConfig, make_proven
from solution.export.runtimes import BY_RUNTIME, EAGER, case
from solution.shrink.rounds import Cut, header_for
from solution.shrink.subject import Subject

_TURNS = Turns(rounds=7, seconds=0.1, batches=(1,))
_RESAMPLED = 500
PACKED = "packed"
"""In place of a runtime: this project's own packed file, in PyTorch."""
OF_PYTORCH = (PACKED, EAGER)
_SPARED = {"int4": ("first", "last", "depthwise")}
"""Groups of layers that stay in float where dev is better for it, by precision."""


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """An exported file.

    dev      the figure of the file on dev, run by its runtime; NaN without pictures
    seconds  that exporting took
    """

    path: Path
    precision: str
    bytes: int
    dev: float
    seconds: float = 0.0


def shipped(cut: Cut, subject: Subject, runtime: str, place: Path, precision: str,
            log: Callable[[str], None]) -> Shipped | None:  # fmt: skip
    """`cut` in the runtime's format at `place`, suffix excepted; None when this precision is not possible."""
    start, write = time.perf_counter(), _saved if runtime in OF_PYTORCH else _exported
    try:
        path, dev = write(cut, subject, runtime, place, precision)
    except InputError as error:
        log(f"{place.parent.name} in {precision}: left out, {error}")
        return None
    if math.isnan(dev):
        dev = subject.quality(answering(path, subject), cut.size, "dev").get(subject.task.figure, math.nan)
    written = [path] if runtime in OF_PYTORCH else BY_RUNTIME[runtime].files(path)
    return Shipped(path=path, precision=precision, bytes=sum(map(file_bytes, written)), dev=dev,
                   seconds=time.perf_counter() - start)  # fmt: skip


def _exported(cut: Cut, subject: Subject, runtime: str, place: Path, precision: str) -> tuple[Path, float]:
    """The file, and its figure on dev where the export has judged it; else NaN."""
    target, loaders = BY_RUNTIME[runtime], subject.loaders(cut.size)
    path = place.with_suffix(target.suffix)
    config = ExportConfig(format=target.name, precision=precision, out=path, max_loss=1.0)
    # Dev decides: val is for the verdict alone.
    proof = None if loaders.dev is None else dataclasses.replace(loaders, val=loaders.dev)
    parity = make_proven(config, cut.net, header_for(cut, subject), proof, _quiet, subject.example_at(cut.size))
    return path, parity.after.get(subject.task.figure, math.nan)


def _saved(cut: Cut, subject: Subject, runtime: str, place: Path, precision: str) -> tuple[Path, float]:
    """A checkpoint, or a packed file with weights on grids of so many bits, norms folded; its inputs stay in float."""
    path, net = place.with_suffix(".packed" if runtime == PACKED else ".safetensors"), cut.net
    if precision != "fp32":
        step = Quantize(scheme=precision, fold_norms=True, other_dtype="float16", spare=_SPARED.get(precision, ()))
        context = subject.context(cut.size, _quiet)
        net = (step if context.dev is not None else dataclasses.replace(step, spare=()))(net, context)
    files.save(path, net, header_for(Cut(net=net, size=cut.size), subject))
    return path, math.nan


def precisions(runtime: str) -> tuple[str, ...]:
    """In which a net may ship, the smallest file first."""
    return {PACKED: ("int4", "int8", "fp32"), EAGER: ("fp32",)}.get(runtime, ("int8", "fp32"))


def answering(path: Path, subject: Subject) -> Any:
    """The file as a callable on batches of images."""
    if path.suffix not in (".packed", ".safetensors"):
        return files.open_file(path, task=None)
    return subject.predict(_loaded(path, subject))


def _loaded(path: Path, subject: Subject) -> nn.Module:
    return materialized(files.load(path, None if spec_of(subject.net) else subject.net)[0])


def times_ms(paths: Mapping[str, tuple[Path, int]], runtime: str, subject: Subject) -> dict[str, float]:
    """{name: median milliseconds of one image}, files asked in turns on one thread; `paths` with the nets' sides."""
    if runtime in OF_PYTORCH:  # in this process, which has the code of the user's net
        nets = {name: (_loaded(path, subject), subject.example_at(size)) for name, (path, size) in paths.items()}
        return {name: median_latency_ms(*own, "cpu") for name, own in nets.items()}
    cases = [case(path, runtime, 1, name) for name, (path, _) in paths.items()]
    return {speed.model: speed.percentile_ms(50) for speed in measure(cases, _TURNS, log=_quiet)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """Quality of a file on val: its figures, and for each resampling of the pictures the main one.

    resampled  (R,); empty where quality is not made of single pictures' classes
    """

    quality: dict[str, float]
    resampled: np.ndarray = field(default_factory=lambda: np.empty(0))

    def interval(self) -> tuple[float, float] | None:
        """95 % of the resampled figures lie in it."""
        if not len(self.resampled):
            return None
        low, high = np.percentile(self.resampled, (2.5, 97.5))
        return float(low), float(high)

    def drop_interval(self, before: Verdict) -> tuple[float, float] | None:
        """Of the drop from `before`, both on the same pictures each time, in points."""
        if not len(self.resampled) or len(self.resampled) != len(before.resampled):
            return None
        low, high = np.percentile(100 * (before.resampled - self.resampled), (2.5, 97.5))
        return float(low), float(high)


def verdict(path: Path, size: int, subject: Subject) -> Verdict:
    """Judge a file on val, run by its runtime."""
    exported = answering(path, subject)
    batches = subject.loaders(size).val
    if batches is None:
        return Verdict(quality={})
    if subject.task is not tasks.CLASSIFICATION:
        return Verdict(quality=dict(subject.task.judge(exported, batches)))
    judged = classify(exported, batches)
    return Verdict(quality=judged.quality(), resampled=_resampled_f1(judged.labels, judged.predictions))


def _resampled_f1(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """(R,) macro F1 of pictures drawn with replacement, always the same draws for the same number of pictures."""
    chance, count = np.random.default_rng(0), int(max(labels.max(), predictions.max())) + 1
    pairs, found = labels * count + predictions, []
    for _ in range(_RESAMPLED):
        drawn = pairs[chance.integers(0, len(pairs), len(pairs))]
        confusion = np.bincount(drawn, minlength=count * count).reshape(count, count)
        hits, both = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
        found.append(float((2 * hits[both > 0] / both[both > 0]).mean()))
    return np.array(found)


def _quiet(_line: str) -> None:
    """Takes a line, and does nothing with it."""
