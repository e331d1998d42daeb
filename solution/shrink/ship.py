"""A net as the file that the runtime runs: exported, judged on dev by that runtime, timed in turns."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from solution.compress.parametrized import materialized
from solution.compress.quantize import Quantize
from solution.contracts import InputError, spec_of
from solution.evaluate.cost import file_bytes, median_latency_ms
from solution.evaluate.speed import Turns, measure
from solution.export import files
from solution.export.exporter import ExportConfig, make_proven
from solution.export.parity import spread
from solution.export.runtimes import BY_RUNTIME, EAGER, case
from solution.shrink.rounds import Cut, header_for
from solution.shrink.subject import Subject

_TURNS = Turns(rounds=7, seconds=0.1, batches=(1,))
_COMPARED = 64
"""Pictures of dev on which the outputs of a file are compared with its net's."""
PACKED = "packed"
"""In place of a runtime: this project's own packed file, in PyTorch."""
OF_PYTORCH = (PACKED, EAGER)
_SPARED = {"int4": ("first", "last", "depthwise")}
"""Groups of layers that stay in float where dev is better for it, by precision."""


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """An exported file.

    dev      the figure of the file on dev, run by its runtime; NaN without pictures
    error    standard error of its drop there from the net as it came, in points; NaN where it is not known
    seconds  that exporting took
    """

    path: Path
    precision: str
    bytes: int
    dev: float
    error: float = math.nan
    seconds: float = 0.0


def shipped(cut: Cut, subject: Subject, runtime: str, place: Path, precision: str,
            log: Callable[[str], None]) -> Shipped | None:  # fmt: skip
    """`cut` in the runtime's format at `place`, suffix excepted, not judged yet; None when this precision cannot be."""
    start, write = time.perf_counter(), _saved if runtime in OF_PYTORCH else _exported
    try:
        path = write(cut, subject, runtime, place, precision)
    except InputError as error:
        log(f"{place.parent.name} in {precision}: left out, {error}")
        return None
    written = [path] if runtime in OF_PYTORCH else BY_RUNTIME[runtime].files(path)
    return Shipped(path=path, precision=precision, bytes=sum(map(file_bytes, written)), dev=math.nan,
                   seconds=time.perf_counter() - start)  # fmt: skip


def _exported(cut: Cut, subject: Subject, runtime: str, place: Path, precision: str) -> Path:
    target, loaders = BY_RUNTIME[runtime], subject.loaders(cut.size)
    path = place.with_suffix(target.suffix)
    config = ExportConfig(format=target.name, precision=precision, out=path, max_loss=1.0)
    example, proof = subject.example_at(cut.size), None
    if loaders.dev is not None:  # val is for the verdict alone
        example, proof = spread(loaders.dev, _COMPARED), dataclasses.replace(loaders, val=None)
    make_proven(config, cut.net, header_for(cut, subject), proof, _quiet, example)
    return path


def _saved(cut: Cut, subject: Subject, runtime: str, place: Path, precision: str) -> Path:
    """A checkpoint, or a packed file with weights on grids of so many bits, norms folded; its inputs stay in float."""
    path, net = place.with_suffix(".packed" if runtime == PACKED else ".safetensors"), cut.net
    if precision != "fp32":
        step = Quantize(scheme=precision, fold_norms=True, other_dtype="float16", spare=_SPARED.get(precision, ()))
        context = subject.context(cut.size, _quiet)
        net = (step if context.dev is not None else dataclasses.replace(step, spare=()))(net, context)
    files.save(path, net, header_for(Cut(net=net, size=cut.size), subject))
    return path


def precisions(runtime: str) -> tuple[str, ...]:
    """In which a net may ship, the smallest file first."""
    return {PACKED: ("int4", "int8", "fp32"), EAGER: ("fp32",)}.get(runtime, ("int8", "fp32"))


def answering(path: Path, subject: Subject) -> Any:
    """The file as a callable on batches of images."""
    if path.suffix not in (".packed", ".safetensors"):
        return files.open_file(path, task=None, checked=True)
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


def _quiet(_line: str) -> None:
    """Takes a line, and does nothing with it."""
