"""Any file of ours in any runtime: a checkpoint is written in the runtime's format first."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from solution.contracts import CLASSIFICATION, InputError
from solution.evaluate.speed import BenchmarkCase, Opened
from solution.export import exporter, files, onnx_file, openvino_file
from solution.export.exported import Exported
from solution.export.extras import needed

EAGER, COMPILE = "eager", "compile"
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino"}
EXPORTING = tuple(FORMATS)
"""Runtimes that take no checkpoint as it is."""
RUNTIMES = (EAGER, COMPILE, *EXPORTING)
_OWN = {onnx_file.SUFFIX: "onnxruntime", openvino_file.SUFFIX: "openvino"}


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is called like a file that can run anywhere: a checkpoint, packed or not."""
    return Path(path).suffix not in files.OPENERS


def own_runtime(path: Path) -> str:
    """The runtime that takes a file as it is."""
    return _OWN.get(Path(path).suffix, EAGER)


def form_for(path: Path, runtime: str, folder: Path, precision: str = "fp32", data: str | None = None) -> Path:
    """The file that `runtime` runs: `path` itself, or its export into `folder`.

    int8 is calibrated and proven on `data`; fp32 and fp16 are written and compared with nothing. `InputError` for an
    exported file of another runtime.
    """
    path = Path(path)
    if runtime not in RUNTIMES:
        raise InputError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    if runtime == own_runtime(path) or (runtime == COMPILE and is_checkpoint(path)):
        return path
    if not is_checkpoint(path):
        raise InputError(f"{path} runs in {own_runtime(path)}, not in {runtime}: give the checkpoint that it is of")
    config = exporter.ExportConfig(file=path, format=FORMATS[runtime], precision=precision, data=data)
    config = dataclasses.replace(config, out=folder / config.path.name)
    if precision != "int8":
        return exporter.write_unproven(config)
    if data is None:
        raise InputError("int8 is calibrated and proven on photos: name them with --data")
    return exporter.make(config, lambda _: None)


def open_in(path: Path, runtime: str, threads: int = 1, task: str | None = CLASSIFICATION) -> Exported:
    """A file that `form_for` gave, ready to run."""
    return files.open_compiled(path, threads) if runtime == COMPILE else files.open_file(path, threads, task)


def import_runtime(runtime: str) -> None:
    """Import the library behind `runtime`. `InputError` that names the extra to install when it is not here."""
    with needed(f"the runtime {runtime}"):
        if runtime == "onnxruntime":
            import onnxruntime  # noqa: F401
        if runtime == "openvino":
            import openvino  # noqa: F401


def case(form: Path, runtime: str, threads: int, model: str) -> BenchmarkCase:
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


def _timed_form(form: Path, runtime: str, threads: int) -> Opened:
    exported = open_in(form, runtime, threads, task=None)
    metadata = exported.metadata
    return Opened(run=exported.run, shape=(len(metadata.mean), metadata.size, metadata.size))
