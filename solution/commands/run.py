"""`python -m solution run RECIPE`: run a recipe and print one row per step."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solution.contracts import Recipe

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
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe; print its rows as they come and Before beside After."""
    from solution import pipeline
    from solution.report.tables import heading, line, side_by_side
    from solution.runtime import is_main_process, pick_device, set_threads

    set_threads()
    recipe = chosen(arguments)
    out, device = arguments.out or Path("runs") / recipe.name, pick_device(arguments.device)
    say = functools.partial(print, flush=True) if is_main_process() else _nothing
    rows = []
    for row in pipeline.run(recipe, out, device=device, resume=arguments.resume, say=say):
        rows.append(row)
        say("\n".join(["", heading(), *map(line, rows)]))
    found = {row.step: {**vars(row), **row.quality} for row in rows}
    say("\n" + side_by_side({"before": found[recipe.before], "after": found[recipe.after]}))
    say(f"\nrows, checkpoints and histories are in {out}")


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
