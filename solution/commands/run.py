"""`python -m solution run RECIPE`: run a recipe, or each recipe of a family, and print one row per step."""

from __future__ import annotations

import argparse
import functools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from solution.commands import listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from solution.contracts import Recipe, Row
    from solution.report.sections import Findings
    from solution.report.tracking import Store

HELP = "run a recipe: train, prune, judge; one row per step"
GO_ON = "the best epoch so far is kept; run the same command with --resume to go on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE and its options."""
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="such as waste_shufflenet")
    parser.add_argument("--list", action="store_true", help="what recipes there are, and nothing else")
    parser.add_argument("--settings", action="store_true", dest="show_settings",
                        help="the recipe's settings: key, value, meaning, and nothing else")  # fmt: skip
    parser.add_argument("--data", metavar="PATH", help="photos: folder, archive, .npz or torchvision name")
    parser.add_argument(
        "--weights", metavar="PATH", help="what a net with weights of its own starts from: model.weights"
    )
    parser.add_argument("--model", metavar="MODEL[@FILE]",
                        help="another net for the recipe: timm:NAME, my_model.py:Net, weights behind @")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, help="where results go (default: runs/RECIPE)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                        help="change a setting: data.size=64, model.units=2,5,2, train.epochs=10")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--folds", type=int, metavar="K", help="K-fold validation: K runs, each judged on a part of train"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", default=1, help="cells of a family side by side (default: 1)"
    )
    parser.add_argument("--exports", metavar="FORMS",
                        help="instead of the recipe's: 'onnxruntime, openvino int8'; '' exports nothing")  # fmt: skip
    parser.add_argument("--score", action="store_true", help="compute the competition's score too")
    parser.add_argument("--measure-later", action="store_true",
                        help="leave exports and times to --resume, perhaps on another machine")  # fmt: skip
    parser.add_argument("--track", metavar="URI", nargs="?", const="",
                        help="note every row in MLflow: a store's address (default: runs/mlflow.db)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe, once or once for each fold; print its rows as they come and Before next to After."""
    from solution.contracts import InputError
    from solution.recipes.catalogue import family_named
    from solution.runtime import is_main_process, num_processes, set_threads

    if arguments.list:
        listing.show(("recipe", "what it is"), listing.recipes())
        return
    if arguments.recipe is None:
        raise InputError("name a recipe: `python -m solution run --list` shows them")
    if arguments.show_settings:
        listing.show(("key", "value", "meaning"), listing.settings(_one(arguments)))
        return
    set_threads()
    log = functools.partial(print, flush=True) if is_main_process() else _nothing
    if _store(arguments, log) is None:  # before hours of training, and before several processes would make it at once
        arguments.track = None
    cells = family_named(arguments.recipe, arguments.data)
    if cells:
        if num_processes() > 1:
            raise InputError(f"{arguments.recipe} is a family: its cells run side by side with --workers N, unlaunched")
        from solution.commands.family import run_family

        run_family({name: changed(recipe, arguments) for name, recipe in cells.items()}, arguments, run_once, log)
        return
    if arguments.workers != 1:
        raise InputError(f"--workers is for a family of recipes; {arguments.recipe} is one recipe")
    recipe = chosen(arguments)
    out = arguments.out or Path("runs") / recipe.name
    if arguments.folds is None:
        run_once(recipe, out, arguments, log)
    else:
        _run_folds(recipe, out, arguments, log)


def _run_folds(recipe: Recipe, out: Path, arguments: argparse.Namespace, log: Callable[[str], None]) -> None:
    from solution.contracts import InputError
    from solution.report.tables import spread_table
    from solution.settings import with_setting

    if arguments.folds < 2:
        raise InputError(f"--folds must be at least 2, got {arguments.folds}")
    recipe = with_setting(recipe, "data.folds", arguments.folds)
    runs = []
    for fold in range(arguments.folds):
        log(f"fold {fold} of {arguments.folds}")
        runs.append(run_once(with_setting(recipe, "data.fold", fold), out / f"fold{fold}", arguments, log))
    log("\n" + spread_table(runs))


def run_once(recipe: Recipe, out: Path, arguments: argparse.Namespace, log: Callable[[str], None]) -> list[Row]:
    """The rows of one run, shown as they come."""
    from solution import pipeline
    from solution.report import tables
    from solution.report.sections import RecipeInfo
    from solution.run_folder import read_rows, read_run
    from solution.runtime import is_main_process, pick_device

    store, rows = _store(arguments, log), []
    device, later = pick_device(arguments.device), arguments.measure_later
    for row in pipeline.run(recipe, out, device=device, resume=arguments.resume, measure_later=later, log=log):
        rows.append(row)
        log("\n" + tables.growing(rows))
        if store:
            _note(store, out, log)
    if not is_main_process():
        return rows  # the first one exports, measures and prints
    rows = read_rows(out)  # a finished run knows more of them
    found = {row.step: {**vars(row), **row.quality} for row in rows}
    log("\n" + tables.side_by_side({"before": found[recipe.before], "after": found[recipe.after]}))
    if recipe.report:
        write_findings(RecipeInfo(report=recipe.report).findings({out.name: read_run(out)}), out, log)
    if store and _note(store, out, log):
        log(f"\ntracked in {store.name}")
    log(f"\nrows, checkpoints and histories are in {out}\n\nnext:\n{_next(recipe, out)}")
    return rows


def _next(recipe: Recipe, out: Path) -> str:
    """The commands that one types after a run."""
    from solution.contracts import task_of
    from solution.tasks import task_named

    path = getattr(recipe.data, "path", None)
    data = f" --data {shlex.quote(path)}" if path else ""
    known = {"out": shlex.quote(str(out)), "data": data}
    return "\n".join(f"  python -m solution {line.format(**known)}" for line in task_named(task_of(recipe.model)).next)


def write_findings(own: Findings, out: Path, log: Callable[[str], None]) -> None:
    """Print what a recipe's own report shows, and write it into `out`: tables.md and drawings; nothing without them."""
    from solution.runtime import write_text

    if not own.tables and not own.drawings:
        return
    files = {"tables.md": own.markdown() + "\n"} | {name: one.file_text() for name, one in own.drawings.items()}
    for name, content in files.items():
        write_text(out / name, content)
    log(f"\n{own.markdown()}\n\nwritten: {', '.join(str(out / name) for name in files)}")


def _note(store: Store, out: Path, log: Callable[[str], None]) -> bool:
    """Note the rows so far, and return whether that went well: a store that fails costs no training."""
    from solution.shell import without_password

    try:
        store.note(out)
    except Exception as error:  # a store can be any server, with errors of its own
        reason = without_password((str(error).splitlines() or [type(error).__name__])[0])
        log(f"\nnot noted in {store.name} ({reason}); rows.json has everything, and --resume notes it later")
        return False
    return True


def _store(arguments: argparse.Namespace, log: Callable[[str], None]) -> Store | None:
    """Where rows are noted besides the folder, if they are; of several processes the first one notes."""
    from solution.runtime import is_main_process

    if arguments.track is None or not is_main_process():
        return None
    from solution.report.tracking import ServerDownError, open_store

    try:
        return open_store(arguments.track)
    except ServerDownError as error:
        log(f"{error}\nrows go to files alone; the same command with --resume notes them when it answers")
        return None


def _nothing(_: str) -> None:
    """The output of processes other than the main one."""


def _one(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the flags describe; of a family its first cell."""
    from solution.recipes.catalogue import family_named

    cells = family_named(arguments.recipe, arguments.data)
    return changed(next(iter(cells.values())), arguments) if cells else chosen(arguments)


def chosen(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the flags describe."""
    from solution.recipes.catalogue import named
    from solution.settings import with_setting

    recipe = named(arguments.recipe)
    return changed(recipe if arguments.data is None else with_setting(recipe, "data.path", arguments.data), arguments)


def changed(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """`recipe` with the seed and the settings of the flags."""
    import dataclasses

    from solution.contracts import InputError
    from solution.settings import with_settings

    recipe = dataclasses.replace(recipe, seed=arguments.seed, score=recipe.score or getattr(arguments, "score", False))
    if getattr(arguments, "model", None) is not None:
        from solution.opening import NamedModel, fed_at

        data = fed_at(recipe.data, arguments.model)
        recipe = dataclasses.replace(recipe, model=NamedModel(name=arguments.model), data=data)
    changes = {} if getattr(arguments, "weights", None) is None else {"model.weights": arguments.weights}
    if getattr(arguments, "exports", None) is not None:
        forms = tuple(filter(None, (form.strip() for form in arguments.exports.split(","))))
        recipe = dataclasses.replace(recipe, exports=forms)
    for setting in arguments.settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {setting!r}")
        changes[key] = value
    return with_settings(recipe, changes)
