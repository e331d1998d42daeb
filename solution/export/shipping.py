"""Finished nets in the forms in which they ship, for rows: made, proven and judged on the val split.

A form is called by its runtime, and its precision where that is not fp32: "openvino", "openvino int8".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from solution.contracts import InputError
from solution.data.loaders import Loaders
from solution.evaluate.speed import BenchmarkCase, Speed
from solution.export import files
from solution.export.exporter import ExportConfig, make_proven
from solution.export.runtimes import BY_RUNTIME, EXPORTING, case, import_runtime
from solution.formats.base import PRECISIONS

_PLAIN = "fp32"


def name_of(speed: Speed) -> str:
    """The form that was timed; PyTorch's own are called eager and compile."""
    return speed.runtime if speed.precision == _PLAIN else f"{speed.runtime} {speed.precision}"


def missing(names: Sequence[str]) -> dict[str, str]:
    """{form: what it lacks} of those whose runtime is not installed. `InputError` for an unknown form."""
    found = {}
    for name in names:
        runtime, _ = _parts(name)
        try:
            import_runtime(runtime)
        except InputError as error:
            found[name] = str(error)
    return found


def ship(path: Path, name: str, loaders: Loaders, log: Callable[[str], None]) -> dict[str, float]:
    """Export the checkpoint at `path` into its folder: {"bytes", and the quality of the exported file}.

    `InputError`, and no file is left, when the form cannot be made or fails its proof.
    """
    config = _config(path, name)
    log(f"\nexporting {path} to {name}")
    net, header = files.load(path)
    parity = make_proven(config, net, header, loaders, log)
    return {"bytes": files.open_file(config.path, task=None, checked=True).num_bytes, **parity.after}


def case_of(path: Path, name: str, threads: int, model: str) -> BenchmarkCase:
    """The form that `ship` made, to be timed under the name `model`."""
    return case(_config(path, name).path, _parts(name)[0], threads, model)


def _config(path: Path, name: str) -> ExportConfig:
    runtime, precision = _parts(name)
    return ExportConfig(file=path, format=BY_RUNTIME[runtime].name, precision=precision)


def _parts(name: str) -> tuple[str, str]:
    runtime, _, precision = name.partition(" ")
    if runtime not in BY_RUNTIME or (precision or _PLAIN) not in PRECISIONS:
        raise InputError(
            f"a form is one of {', '.join(EXPORTING)}, and where it is not fp32 also fp16 or int8, such as "
            f"'openvino int8'; got {name!r}"
        )
    return runtime, precision or _PLAIN
