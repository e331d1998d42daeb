"""Any file of ours in any runtime: a checkpoint is written in the runtime's format first."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from solution.contracts import CLASSIFICATION, InputError
from solution.evaluate.speed import BenchmarkCase, Opened
from solution.export import exporter, files
from solution.export.files import Model
from solution.formats.base import CALIBRATED
from solution.formats.exported import Exported
from solution.registry import FORMATS
from solution.text import did_you_mean

EAGER, COMPILE = "eager", "compile"
"""PyTorch as it is, and behind its compiler: they take checkpoints."""
BY_RUNTIME = {format.runtime: format for format in FORMATS.values() if format.runtime not in (EAGER, COMPILE)}
EXPORTING = tuple(BY_RUNTIME)
"""Runtimes that take no checkpoint as it is."""
RUNTIMES = (EAGER, COMPILE, *EXPORTING)


def is_checkpoint(path: Model) -> bool:
    """Whether `path` can run anywhere: it is called like a checkpoint, packed or not, or is a net of elsewhere."""
    return files.format_of(path) is None


def own_runtime(path: Model) -> str:
    """The runtime that takes a file as it is."""
    format = files.format_of(path)
    return EAGER if format is None else format.runtime


def libraries_of(runtime: str) -> tuple[str, ...]:
    """The packages behind a runtime."""
    return BY_RUNTIME[runtime].libraries if runtime in BY_RUNTIME else ("torch",)


def form_for(path: Model, runtime: str, folder: Path, precision: str = "fp32", data: str | None = None) -> Model:
    """The file that `runtime` runs: `path` itself, or its export into `folder`.

    int8 is calibrated and proven on `data`; fp32 and fp16 are written and compared with nothing. `InputError` for an
    exported file of another runtime.
    """
    if runtime not in RUNTIMES:
        raise InputError(
            f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}{did_you_mean(runtime, RUNTIMES)}"
        )
    if runtime == own_runtime(path) or (runtime == COMPILE and is_checkpoint(path)):
        return path
    if not is_checkpoint(path):
        raise InputError(f"{path} runs in {own_runtime(path)}, not in {runtime}: give the checkpoint that it is of")
    config = exporter.ExportConfig(file=path, format=BY_RUNTIME[runtime].name, precision=precision, data=data)
    config = dataclasses.replace(config, out=folder / config.path.name)
    if precision not in CALIBRATED:
        return exporter.write_unproven(config)
    if data is None:
        raise InputError("int8 is calibrated and proven on photos: name them with --data")
    return exporter.make(config, lambda _: None)


def open_in(
    path: Model, runtime: str, threads: int = 1, task: str | None = CLASSIFICATION, *, checked: bool = False
) -> Exported:
    """A file that `form_for` gave, ready to run; `checked` as in `files.open_file`."""
    if runtime == COMPILE:
        return files.open_compiled(path, threads)
    return files.open_file(path, threads, task, checked=checked)


def import_runtime(runtime: str) -> None:
    """Import the library behind `runtime`. `InputError` that names the extra to install when it is not here."""
    if runtime in BY_RUNTIME:
        BY_RUNTIME[runtime].check_runtime()


def case(form: Model, runtime: str, threads: int, model: str) -> BenchmarkCase:
    """A file that `form_for` gave, to be timed under the name `model`."""
    precision = "fp32" if is_checkpoint(form) else files.open_file(form, task=None).metadata.precision
    return BenchmarkCase(
        model=model,
        runtime=runtime,
        precision=precision,
        threads=threads,
        ready=functools.partial(import_runtime, runtime),
        open=functools.partial(_timed_form, form, runtime, threads),
    )


def _timed_form(form: Model, runtime: str, threads: int) -> Opened:
    exported = open_in(form, runtime, threads, task=None, checked=True)  # `case` has opened it
    metadata = exported.metadata
    return Opened(run=exported.run, shape=(len(metadata.mean), metadata.size, metadata.size))
