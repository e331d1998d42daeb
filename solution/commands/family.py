"""A family of recipes, for `run`: cells one by one or in parallel, each in its folder; then what they show together."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import multiprocessing
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from solution.contracts import InputError, Recipe
from solution.runtime import limit, set_threads, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = "log.txt"

RunOnce = Callable[[Recipe, Path, argparse.Namespace, Callable[[str], None]], object]
"""Runs one recipe into a folder: a function of a module, which other processes import."""


def run_family(
    cells: Mapping[str, Recipe], arguments: argparse.Namespace, run_once: RunOnce, log: Callable[[str], None]
) -> None:
    """Run every cell in a folder of its own below --out; with --resume, finished ones are taken from there.

    A cell that fails does not keep the others from running. `InputError` at the end names those that failed.
    """
    out = arguments.out or Path("runs") / Path(arguments.recipe).stem
    _check(cells, out, arguments)
    if arguments.workers > 1:
        _fetch(cells)
    failed: dict[str, str] = {}
    outcomes = _one_by_one if arguments.workers == 1 else _side_by_side
    for name, error in outcomes(cells, out, arguments, run_once, log):
        log(f"\n{name}: {f'failed ({error})' if error else 'done'}")
        failed |= {name: error} if error else {}
    for folder in dict.fromkeys((out / name).parent for name in cells):
        _write_findings(cells, folder, log)
    if failed:
        raise InputError(f"{len(failed)} of {len(cells)} cells failed: {_by_reason(failed)}")


def _by_reason(failed: Mapping[str, str]) -> str:
    """Cells and what stopped them; a missing data set is reported once for all nets that wanted it."""
    names: dict[str, list[str]] = {}
    for name, reason in failed.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(cells)}: {reason}" for reason, cells in names.items())


def _check(cells: Mapping[str, Recipe], out: Path, arguments: argparse.Namespace) -> None:
    from solution.run_folder import RunFolder

    if arguments.folds is not None:
        raise InputError("--folds is for one recipe, not for a family")
    most = limit("WORKERS", 256)
    if not 1 <= arguments.workers <= most:
        raise InputError(f"--workers must be 1 to {most}, got {arguments.workers}")
    there = [name for name in cells if RunFolder(path=out / name).is_taken]
    if there and not arguments.resume:
        raise InputError(f"{out} already holds {', '.join(there)}: add --resume to go on, or choose another --out")


def _fetch(cells: Mapping[str, Recipe]) -> None:
    """Open every data set once, so that cells side by side do not download it into the same folder at once."""
    for data in {recipe.data.path: recipe.data for recipe in cells.values()}.values():
        with contextlib.suppress(InputError):  # its cells will report it
            data.source()


def _one_by_one(
    cells: Mapping[str, Recipe],
    out: Path,
    arguments: argparse.Namespace,
    run_once: RunOnce,
    log: Callable[[str], None],
) -> Iterator[tuple[str, str]]:
    for name, recipe in cells.items():
        log(f"\n{name}")
        yield name, _outcome(functools.partial(run_once, recipe, out / name, arguments, log))


def _side_by_side(
    cells: Mapping[str, Recipe],
    out: Path,
    arguments: argparse.Namespace,
    run_once: RunOnce,
    log: Callable[[str], None],
) -> Iterator[tuple[str, str]]:
    """In processes of their own, which write what they do to a log."""
    log(f"{len(cells)} cells, {arguments.workers} side by side; see {out}/*/*/{LOG}")
    with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        runs = {
            pool.submit(_outcome, functools.partial(_alone, cells[name], out / name, arguments, run_once)): name
            for name in cells
        }
        for run in concurrent.futures.as_completed(runs):
            yield runs[run], run.result()


def _outcome(run: Callable[[], object]) -> str:
    """ "", or why `run` failed. Whatever it is, the other cells go on."""
    try:
        run()
    except InputError as error:
        return str(error)
    except concurrent.futures.BrokenExecutor:
        return (
            "its process was killed, perhaps for want of memory: run it again with --resume, and with fewer --workers"
        )
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""


def _alone(recipe: Recipe, out: Path, arguments: argparse.Namespace, run_once: RunOnce) -> None:
    """One cell in a process that takes no other with it: it gives back all memory, and may be killed."""
    # A process that was not forked is safe beside threads.
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(_logged, recipe, out, arguments, run_once).result()


def _logged(recipe: Recipe, out: Path, arguments: argparse.Namespace, run_once: RunOnce) -> None:
    """One cell; its output goes to its log."""
    set_threads()
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOG).open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        run_once(recipe, out, arguments, functools.partial(print, flush=True))


def _write_findings(cells: Mapping[str, Recipe], folder: Path, log: Callable[[str], None]) -> None:
    """What the finished cells in `folder` show together, printed and written there: grid.md and drawings."""
    from solution.run_folder import folders_of_runs, read_run

    report = next(iter(cells.values())).report
    runs = {path.name: read_run(path) for path in folders_of_runs(folder, "*")}
    if report is None or not runs:
        return
    own = report(runs, "")
    text = f"# {folder.name}\n\n{own.markdown()}"
    files = {"grid.md": text + "\n"} | {name: drawing.file_text() for name, drawing in own.drawings.items()}
    for name, content in files.items():
        write_text(folder / name, content)
    log(f"\n{text}\n\nwritten: {', '.join(str(folder / name) for name in files)}")
