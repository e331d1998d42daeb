"""`python -m solution run RECIPE`: run a recipe and print one row per step."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from solution.contracts import Recipe, Row

HELP = "run a recipe: train, prune, judge; one row per step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE and its options."""
    parser.add_argument("recipe", metavar="RECIPE", help="such as waste_shufflenet")
    parser.add_argument("--data", metavar="PATH", help="photos: folder, archive, .npz or torchvision name")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where results go (default: runs/RECIPE)")
    parser.add_argument("--set", metavar="ADDRESS=VALUE", action="append", default=[], dest="settings",
                        help="change a setting: data.size=64, model.units=2,5,2, train.epochs=10")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--folds", type=int, metavar="K", help="K-fold validation: K runs, each judged on a part of train"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe, once or once for each fold; print its rows as they come and Before beside After."""
    from solution.knobs import with_knob
    from solution.report.spread import spread_table
    from solution.runtime import is_main_process, set_threads

    set_threads()
    recipe = chosen(arguments)
    out = arguments.out or Path("runs") / recipe.name
    say = functools.partial(print, flush=True) if is_main_process() else _nothing
    if arguments.folds is None:
        run_once(recipe, out, arguments, say)
        return
    recipe = with_knob(recipe, "data.folds", arguments.folds)
    runs = []
    for fold in range(arguments.folds):
        say(f"fold {fold} of {arguments.folds}")
        runs.append(run_once(with_knob(recipe, "data.fold", fold), out / f"fold{fold}", arguments, say))
    say("\n" + spread_table(runs))


def run_once(recipe: Recipe, out: Path, arguments: argparse.Namespace, say: Callable[[str], None]) -> list[Row]:
    """The rows of one run, shown as they come."""
    from solution import pipeline
    from solution.report.tables import heading, line, side_by_side
    from solution.runtime import pick_device

    rows = []
    for row in pipeline.run(recipe, out, device=pick_device(arguments.device), resume=arguments.resume, say=say):
        rows.append(row)
        say("\n".join(["", heading(), *map(line, rows)]))
    found = {row.step: {**vars(row), **row.quality} for row in rows}
    say("\n" + side_by_side({"before": found[recipe.before], "after": found[recipe.after]}))
    say(f"\nrows, checkpoints and histories are in {out}")
    return rows


def _nothing(_: str) -> None:
    """What the helpers of a main process say."""


def chosen(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the flags describe."""
    import dataclasses

    from solution.contracts import InputError
    from solution.knobs import with_knob
    from solution.recipes import named

    recipe = dataclasses.replace(named(arguments.recipe), seed=arguments.seed)
    if arguments.data is not None:
        recipe = with_knob(recipe, "data.path", arguments.data)
    for setting in arguments.settings:
        address, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes ADDRESS=VALUE, got {setting!r}")
        recipe = with_knob(recipe, address, value)
    return recipe
