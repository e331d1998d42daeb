"""`python -m solution report DIR...`: the rows of finished runs, their spread over seeds, and a page to look at."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from solution.contracts import InputError
from solution.runtime import ROOT, write_text

if TYPE_CHECKING:
    from solution.run_folder import Run

HELP = "tables, drawings and one HTML page of finished runs; docs/results.md with --docs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR... and its options."""
    parser.add_argument("folders", metavar="DIR", nargs="*", type=Path, help="folders that `run` wrote, one per seed")
    parser.add_argument("--html", metavar="FILE", type=Path, help="the page (default: DIR/report.html for one DIR)")
    parser.add_argument("--data", metavar="PATH", help="photos, to judge the first DIR's checkpoints once more")
    parser.add_argument("--docs", action="store_true", help="write docs/results.md from docs/rows instead")


def run(arguments: argparse.Namespace) -> None:
    """Print the table and write the page, or write the documentation."""
    if arguments.docs == bool(arguments.folders):
        raise InputError("name the folders of finished runs, or give --docs alone")
    if arguments.docs:
        write_docs(ROOT / "docs")
        return
    from solution.report.tables import spread_table
    from solution.run_folder import PAGE, read_run

    runs = [read_run(folder) for folder in arguments.folders]
    print(spread_table([one.rows for one in runs]))
    target = arguments.html or (runs[0].folder / PAGE if len(runs) == 1 else None)
    if target is not None:
        write_page(runs, target, arguments.data)
    elif arguments.data is not None:
        raise InputError("--data serves the page: with several folders name its file with --html FILE")


def write_docs(folder: Path) -> None:
    """Write `results.md` and its pictures into `folder` from the rows in its `rows`."""
    from solution.recipes.catalogue import info_of
    from solution.report.results import pictures, results

    rows = folder / "rows"
    texts = {"results.md": results(rows, info_of)}
    texts |= {name: drawing.file_text() for name, drawing in pictures(rows, info_of).items()}
    for name, text in texts.items():
        write_text(folder / name, text)
        print(f"written: {folder / name}")


def write_page(runs: Sequence[Run], target: Path, data: str | None) -> None:
    """Write the page of `runs` to `target`; with `data`, the checkpoints of the first are judged again."""
    from solution.locks import claimed

    with claimed(target):
        write_text(target, _page(runs, data))
    print(f"page: {target}")


def _page(runs: Sequence[Run], data: str | None) -> str:
    from solution.recipes.catalogue import info_of
    from solution.report.page import page

    seen = None
    if data is not None:
        from solution.report.diagnostics import look
        from solution.runtime import set_threads

        set_threads()
        if not runs[0].checkpoints():
            raise InputError(f"{runs[0].folder} holds no before.safetensors or after.safetensors to judge")
        seen = look(runs[0].checkpoints(), data, runs[0].settings)
    return page(runs, seen, info_of)
