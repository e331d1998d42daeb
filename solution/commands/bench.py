"""`python -m solution bench MODEL...`: latency, throughput, memory and loading of files of ours, in turns."""

from __future__ import annotations

import argparse
import json
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from solution.commands.model import FORMS, RUNTIME_NAMES, add_model_flags, models_of
from solution.contracts import InputError

if TYPE_CHECKING:
    from solution.evaluate.speed import BenchmarkCase, Speed
    from solution.export.files import Model

HELP = "measure latency, throughput, memory and loading of nets in several runtimes, in turns"
_PLAIN = "fp32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL... and how to measure."""
    parser.add_argument("models", metavar="MODEL", nargs="+", help=f"an exported file, or {FORMS}")
    parser.add_argument("--runtimes", metavar="NAME", nargs="+",
                        help=f"{RUNTIME_NAMES} (default: all that are here)"
                        )  # fmt: skip
    parser.add_argument("--threads", metavar="N", nargs="+", type=int, default=[1, 2], help="default: 1 2")
    parser.add_argument("--batch", metavar="N", nargs="+", type=int, default=[1, 64],
                        help="batch sizes: latency is of the smallest (default: 1 64)")  # fmt: skip
    parser.add_argument("--precision", metavar="NAME", nargs="+", default=[_PLAIN],
                        help="of fp32, fp16, int8, for checkpoints in runtimes other than PyTorch; int8 needs --data"
                        )  # fmt: skip
    parser.add_argument("--data", metavar="PATH", help="photos that calibrate and prove int8")
    parser.add_argument("--rounds", metavar="N", type=int, default=10, help="after one of warm-up (default: 10)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="also write speed.json and speed.svg there")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measure in turns, print the table, write figures and chart when requested."""
    from solution.evaluate.speed import Turns, measure
    from solution.report.plots import speed_table
    from solution.runtime import MOST_THREADS, check_writable

    turns = Turns(rounds=arguments.rounds, batches=tuple(arguments.batch))
    for threads in arguments.threads:
        if not 1 <= threads <= MOST_THREADS:
            raise InputError(f"--threads must be 1 to {MOST_THREADS}, got {threads}")
    if arguments.out is not None:
        check_writable(arguments.out / "speed.json")
    runtimes = list(_runtimes(arguments.runtimes))
    with tempfile.TemporaryDirectory() as folder:
        cases = list(_cases(arguments, runtimes, Path(folder)))
        speeds = measure(cases, turns, log=_log)
    about = _about(cases) + f", {turns.rounds} round(s) in turns"
    print("\n" + speed_table(speeds, about).markdown())
    if arguments.out is not None:
        _write(speeds, about, arguments.out)


def _log(line: str) -> None:
    print(line, flush=True)


def _runtimes(wanted: Sequence[str] | None) -> Iterator[str]:
    """Those of `wanted`, which must work here; else all that do, and what each other one lacks is printed."""
    from solution.export.runtimes import COMPILE, RUNTIMES, import_runtime

    for runtime in wanted or RUNTIMES:
        try:
            import_runtime(runtime)
            if runtime == COMPILE:
                _check_compiler()
        except InputError as error:
            if wanted:
                raise
            _log(f"{runtime} is left out: {error}")
        else:
            yield runtime


def _check_compiler() -> None:
    """`InputError` unless a C++ compiler and Python's headers are where torch.compile looks for them."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as error:  # InvalidCxxCompiler among them
        raise InputError("torch.compile needs a C++ compiler: install g++, or name yours in CXX") from error
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise InputError("torch.compile needs Python's headers: install python3-dev")


def _cases(arguments: argparse.Namespace, runtimes: Sequence[str], folder: Path) -> Iterator[BenchmarkCase]:
    """Each file in each runtime that takes it, at each precision and number of threads."""
    from solution.export.runtimes import case, form_for, is_checkpoint, own_runtime

    models = models_of(arguments, arguments.models)
    for index, (path, name) in enumerate(zip(models, _names(models), strict=True)):
        taking = [own for own in runtimes if is_checkpoint(path) or own == own_runtime(path)]
        if not taking:
            raise InputError(f"{path} runs in {own_runtime(path)}, not in {', '.join(runtimes)}")
        for runtime in taking:
            for precision in _precisions(path, runtime, arguments.precision):
                form = form_for(path, runtime, folder / str(index), precision, arguments.data)
                for threads in arguments.threads:
                    yield case(form, runtime, threads, name)


def _precisions(path: Model, runtime: str, wanted: Sequence[str]) -> Sequence[str]:
    """`wanted` where the file is exported first; elsewhere it runs as it is, which is printed."""
    from solution.export.runtimes import EXPORTING, is_checkpoint

    if is_checkpoint(path) and runtime in EXPORTING:
        return wanted
    if any(precision != _PLAIN for precision in wanted):
        _log(f"{path} runs in {runtime} as it is: --precision is for checkpoints in {' and '.join(EXPORTING)}")
    return (_PLAIN,)


def _names(models: Sequence[Model]) -> list[str]:
    """The files' names, with their folders where names are not enough; MODEL as it was written for other nets."""
    names = [Path(str(model)).name for model in models]
    return [name if names.count(name) == 1 else str(model) for name, model in zip(names, models, strict=True)]


def _about(cases: Sequence[BenchmarkCase]) -> str:
    """Hardware and versions."""
    from importlib.metadata import version

    from solution.export.runtimes import libraries_of
    from solution.runtime import hardware

    machine = ", ".join(part for part in hardware().split(", ") if "thread" not in part)
    libraries = dict.fromkeys(library for case in cases for library in libraries_of(case.runtime))
    return f"{machine}; {', '.join(f'{library} {version(library)}' for library in libraries)}"


def _write(speeds: Sequence[Speed], about: str, folder: Path) -> None:
    from solution.report.plots import speed_drawing
    from solution.runtime import write_text

    result = {"about": about, "speeds": [speed.figures() for speed in speeds]}
    texts = {"speed.json": json.dumps(result, indent=1) + "\n", "speed.svg": speed_drawing(speeds).file_text()}
    for name, text in texts.items():
        write_text(folder / name, text)
    print(f"\nwritten: {folder / 'speed.json'}, {folder / 'speed.svg'}")
