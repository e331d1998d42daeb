"""`python -m solution search RECIPE`: the best settings of a recipe, found by training."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.commands import run as run_command

if TYPE_CHECKING:
    from solution.search.session import Search

HELP = "search the settings of a recipe for the best score; the best trial becomes a recipe file"
GO_ON = "the same command goes on where this one was"


_SINGLE = (
    *("data", "trials", "out", "name", "objective"),
    *("first_epochs", "max_macs", "max_ram", "hope", "seed", "device"),
)
"""Flags of one value that a worker is started with."""
STORAGE = "SOLUTION_STORAGE"
"""The environment variable that may hold --storage: a list of processes shows every flag, a password too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE and its options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name, or a .py file with recipe() and space()")
    parser.add_argument("--data", metavar="PATH", help="photos: folder, archive, .npz or torchvision name")
    parser.add_argument("--trials", metavar="N", type=int, default=100, help="trials in all (default: 100)")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that train (default: 1)")
    parser.add_argument(
        "--storage", metavar="URL", help=f"SQLAlchemy URL, or a journal file (default: ${STORAGE}, else in --out)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where results go (default: runs/search_RECIPE)")
    parser.add_argument("--name", help="of the study (default: the recipe's)")
    parser.add_argument("--objective", choices=("score", "front"), default="score",
                        help="the best score, or the front of macro F1 against MACs")  # fmt: skip
    parser.add_argument("--vary", metavar="ADDRESS=VALUES", action="append", default=[],
                        help='instead of the recipe\'s space: "model.groups=[1,3]", "train.lr=(0.05, 0.5, \'log\')"'
                        )  # fmt: skip
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                        help="change a setting of all trials, such as after.epochs=40")  # fmt: skip
    parser.add_argument("--first-epochs", metavar="N", type=int, help="epochs before weak trials first rest")
    parser.add_argument("--max-macs", metavar="N", type=int, help="refuse nets with more (default: the reference)")
    parser.add_argument("--max-ram", metavar="BYTES", help='refuse nets that need more on a microcontroller: "64 KiB"')
    parser.add_argument("--hope", metavar="F1", type=float, default=1.0,
                        help="refuse nets that could not win with this macro F1 (default: 1)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the draws and of every training (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Search, then write and print what was found. The same words go on with a search that was stopped."""
    from solution.contracts import InputError
    from solution.runtime import limit, set_threads

    most = limit("WORKERS", 256)
    if not 1 <= arguments.workers <= most:
        raise InputError(f"--workers must be 1 to {most}, got {arguments.workers}")
    set_threads()
    search = _described(arguments)
    if arguments.worker:
        search.work()
        return
    _lead(search, arguments)


def _lead(search: Search, arguments: argparse.Namespace) -> None:
    """Start workers, wait for them, print the outcome."""
    from solution.search.outcome import table
    from solution.search.session import WorkerPool

    def log(line: str) -> None:
        print(line, flush=True)

    for name, offered in search.checked_space.described().items():
        log(f"{name}: {offered}")
    command = [sys.executable, "-m", "solution", "search", *_words(arguments), "--worker"]
    pool = WorkerPool(
        command=command,
        size=arguments.workers,
        logs=search.folder / "workers",
        queue=search.queue,
        secrets={STORAGE: search.storage} if search.storage else {},
        log=log,
    )
    pool.run()
    files = search.outcome().write()
    log(f"\n{table(search.queue.study)}\n\nwritten: {', '.join(map(str, files))}")
    log(f"run it: python -m solution run {files[0]} --data PATH --seed {arguments.seed}")


def _described(arguments: argparse.Namespace) -> Search:
    """The search that the flags describe."""
    from solution.runtime import pick_device
    from solution.search.session import Search
    from solution.search.trainer import Limits

    limits = {
        "hope": arguments.hope,
        "ram": arguments.max_ram,
        **({} if arguments.max_macs is None else {"macs": arguments.max_macs}),
    }
    recipe = run_command.chosen(arguments)
    return Search(
        recipe=recipe,
        space=_space(arguments),
        folder=arguments.out or Path("runs") / f"search_{recipe.name}",
        trials=arguments.trials,
        storage=arguments.storage or os.environ.get(STORAGE),
        name=arguments.name,
        objective=arguments.objective,
        first_epochs=arguments.first_epochs,
        limits=Limits(**limits),
        device=pick_device(arguments.device),
    )


def _space(arguments: argparse.Namespace) -> dict[str, Any]:
    """What --vary gives, else the space of the recipe's file."""
    from solution.contracts import InputError
    from solution.recipes.catalogue import space_named

    if not arguments.vary:
        return space_named(arguments.recipe)
    space = {}
    for word in arguments.vary:
        key, _, values = word.rpartition("=")
        try:
            space[key.strip()] = ast.literal_eval(values.strip())
        except (ValueError, SyntaxError) as error:
            raise InputError(f"--vary takes ADDRESS=[choices] or ADDRESS=(low, high), got {word!r}") from error
    return space


def _words(arguments: argparse.Namespace) -> list[str]:
    """The words that make a worker open the same search."""
    single = {name: getattr(arguments, name) for name in _SINGLE}
    words = [arguments.recipe]
    for name, value in single.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}={value}"]
    return [*words, *(f"--vary={word}" for word in arguments.vary), *(f"--set={word}" for word in arguments.settings)]
