"""`python -m solution compress MODEL --step ...`: make a net smaller, or measure how sensitive its layers are."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.commands import listing
from solution.commands.model import FORMS, add_model_flags
from solution.contracts import InputError, StepContext
from solution.text import did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from solution.checkpoint import Header
    from solution.contracts import Step
    from solution.data.loaders import Loaders

HELP = "make a net smaller by steps such as prune_channels, or measure how sensitive its layers are"
SELF = "self"
"""What --teacher calls the net as it came."""
GO_ON = "what was finished is kept; run the same command with --resume to go on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, what to do with it, and where it goes."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help=FORMS)
    parser.add_argument("--step", metavar='"NAME FIELD=VALUE ..."', action="append", default=[], dest="steps",
                        help='such as "prune_channels ratio=0.5"; may be given several times')  # fmt: skip
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                        help="change data.KEY, or STEP.FIELD of the steps of that name: data.batch_size=32, "
                        "train.epochs=5")  # fmt: skip
    parser.add_argument("--teacher", metavar="NET", help="train steps learn from its logits, too: self, the net as it "
                        "came, or a checkpoint")  # fmt: skip
    parser.add_argument("--max-drop", metavar="POINTS", type=float,
                        help="write nothing when dev loses more than so many points of 100")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="what steps there are, with their fields; nothing else")
    parser.add_argument("--sensitivity", action="store_true", help="prune one layer at a time, judge, draw")
    parser.add_argument("--data", metavar="PATH", help="photos: folder, archive, .npz or torchvision name")
    parser.add_argument("--out", metavar="PATH", type=Path,
                        help="the new checkpoint, or packed file (.packed); with --sensitivity a folder")  # fmt: skip
    parser.add_argument("--no-recover", action="store_true", help="leave out the training without labels that follows "
                        "a cut where there are --data")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of new weights, order and augmentation (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with what was stopped")
    parser.add_argument("--score", action="store_true", help="compute the competition's score too")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Cut and write a file, or measure and write table and picture."""
    if arguments.list:
        listing.show(("step", "default", "meaning"), listing.steps())
        return
    if arguments.model is None or arguments.out is None:
        raise InputError("name a model and --out; `python -m solution compress --list` shows the steps")
    if bool(arguments.steps) == arguments.sensitivity:
        raise InputError("give either --step, once or several times, or --sensitivity")
    from solution.locks import claimed
    from solution.registry import step_from
    from solution.runtime import check_writable, set_threads

    set_threads()
    arguments.steps += recovery(arguments)
    steps = _taught([step_from(text) for text in _with_settings(arguments)], arguments.teacher)
    if arguments.max_drop is not None and not (0 <= arguments.max_drop < 100 and arguments.data):
        raise InputError("--max-drop is in points of 100, 0 or more, and is judged on photos: name them with --data")
    check_writable(arguments.out / "sensitivity.csv" if arguments.sensitivity else arguments.out)
    with claimed(arguments.out):
        loaded = opened(arguments, steps)
        if arguments.sensitivity:
            _measure(arguments, loaded)
        else:
            _compress(arguments, loaded, steps)


def recovery(arguments: argparse.Namespace) -> list[str]:
    """The steps that follow the last one of itself: after a cut that no training follows, one without labels."""
    from solution.contracts import StructuralStep
    from solution.registry import step_from

    kinds = [step_from(text) for text in arguments.steps]
    if arguments.data is None or arguments.no_recover or not kinds or not isinstance(kinds[-1], StructuralStep):
        return []
    return ["recover"] if kinds[-1].recoverable else []


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """The net, what is known of it, and what its steps may use.

    loaders  None without --data
    score    whether the competition's score is computed
    """

    model: nn.Module
    header: Header
    context: StepContext
    loaders: Loaders | None
    score: bool = False

    def figures(self, model: nn.Module, header: Header, path: Path) -> dict[str, Any]:
        """Write `model` to `path` and judge it; quality on the val split where there are data."""
        from solution.evaluate.cost import file_bytes
        from solution.export import files
        from solution.tasks import judge, score, task_named

        example = self.context.example
        batches = {} if self.loaders is None else {"": self.loaders.opened("val")}
        figures = judge(model, example, batches, task=task_named(header.task), device=self.context.device)
        if self.score:
            figures["score"] = score(model, example, figures)
        figures |= figures.pop("quality")
        files.save(path, model, dataclasses.replace(header, figures=figures))
        return {**figures, "bytes": file_bytes(path)}


def opened(arguments: argparse.Namespace, steps: list[Step]) -> LoadedModel:
    """The subject that the flags describe, with as many calibration images as `steps` want."""
    from solution.commands.model import opened_model
    from solution.data.loaders import Data
    from solution.runtime import pick_device, seed_everything
    from solution.settings import changed

    device = pick_device(arguments.device)
    seed_everything(arguments.seed)
    wanted = max([Data.calibration_images, *(getattr(step, "images", 0) for step in steps)])
    own = dict(setting.split("=", 1) for setting in arguments.settings if setting.startswith("data."))
    given = Data(path=arguments.data, calibration_images=wanted)
    data = None if arguments.data is None else changed(given, own, "data")
    found = opened_model(arguments, data)
    model, header = found.net, found.header
    loaders = None if data is None else data.fed_as(header).open(seed=arguments.seed)
    context = dataclasses.replace(_given(loaders, header, device, arguments.seed), original=model)
    return LoadedModel(model=model, header=header, context=context, loaders=loaders, score=arguments.score)


def _given(loaders: Loaders | None, header: Header, device: str, seed: int) -> StepContext:
    import torch

    from solution.opening import load

    if loaders is None:
        shape = (2, len(header.mean), header.size, header.size)
        example = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return StepContext(example=example, load=load, device=device, seed=seed)
    return loaders.context(load=load, device=device, seed=seed)


def _with_settings(arguments: argparse.Namespace) -> list[str]:
    """The texts of the steps with what --set changes: a field that stands twice has its last value."""
    texts = list(arguments.steps)
    for setting in arguments.settings:
        key, equals, _ = setting.partition("=")
        name, dot, _ = key.partition(".")
        places = [at for at, text in enumerate(texts) if text.split()[:1] == [name]]
        if not equals or not dot or not (places or name == "data"):
            names = dict.fromkeys(["data", *(text.split()[0] for text in texts if text.split())])
            raise InputError(
                f"--set takes NAME.KEY=VALUE, where NAME is one of {', '.join(names)}, got {setting!r}"
                + did_you_mean(name, names)
            )
        for at in places:
            texts[at] += f" {shlex.quote(setting.partition('.')[2])}"
    return texts


def _taught(steps: list[Step], teacher: str | None) -> list[Step]:
    """The steps with `teacher` for those that train: a plain training becomes a distillation."""
    from solution.train.distillation import Distill
    from solution.train.step import Train

    if teacher is None:
        return steps

    def with_teacher(step: Step) -> Step:
        if isinstance(step, Distill):
            return dataclasses.replace(step, teachers=(teacher,))
        if type(step) is not Train:
            return step
        own = {item.name: getattr(step, item.name) for item in dataclasses.fields(step)}
        return Distill(**own, teachers=(teacher,), live=True)

    found = [with_teacher(step) for step in steps]
    if found == steps:
        raise InputError("--teacher is for steps that train: add --step train or --step distill")
    return found


def _check(loaded: LoadedModel, steps: list[Step]) -> None:
    """`InputError` for what a later step lacks, before the first one runs; their cuts are tried without training."""
    from solution.run_folder import after_in
    from solution.settings import in_short

    model = loaded.model
    for number, step in enumerate(steps if len(steps) > 1 else (), start=1):  # a single one needs no number
        where = f"step {number} of {len(steps)}, {in_short(step)}"
        for setting, names in step.requires.items():
            if missing := [name for name in names if name != SELF and not after_in(Path(name)).is_file()]:
                raise InputError(f"{where}: there is no net {missing[0]}; name yours with {setting}=PATH")
        for name in step.needs:
            loaded.context.need(name, where)
        try:
            model = step.cost_only(model, dataclasses.replace(loaded.context, log=lambda _line: None))
        except InputError as error:
            raise InputError(f"{where}: {error}") from error


def _compress(arguments: argparse.Namespace, loaded: LoadedModel, steps: list[Step]) -> None:
    """Each step prints its plan; then the net before is compared with the net after."""
    from solution.commands.model import quality_line, words_for
    from solution.contracts import plans_of
    from solution.report.tables import side_by_side
    from solution.run_folder import MODEL
    from solution.runtime import write_text
    from solution.settings import in_short

    _check(loaded, steps)
    lines: list[str] = []

    def log(line: str = "") -> None:
        print(line)
        lines.append(line)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"before{arguments.out.suffix}")
        before = loaded.figures(loaded.model, loaded.header, path)
    if loaded.loaders is not None:
        quality: dict[str, float] = {name: before[name] for name in ("f1", "miou", "accuracy") if name in before}
        log(quality_line(quality, loaded.loaders))
    model, rows = loaded.model, [("before", before)]
    with _work_folder(arguments) as work:
        for number, (step, text) in enumerate(zip(steps, arguments.steps, strict=True), start=1):
            log(f"\nstep {number} of {len(steps)}: {in_short(step)}")
            known, name = len(plans_of(model)), f"{number}_{text.split()[0]}"
            model = _stepped(loaded, model, step, work / name, arguments.resume)
            for plan in plans_of(model)[known:]:
                log(str(plan))
            if number < len(steps):
                rows.append((name, loaded.figures(model, loaded.header, work / name / f"judged_{MODEL}")))
        _check_drop(arguments, loaded, model)
        recipe = {"name": "compress", "seed": arguments.seed, "model": arguments.model, "steps": arguments.steps}
        header = dataclasses.replace(loaded.header, plans=plans_of(model), recipe=recipe)
        after = loaded.figures(model, header, arguments.out)
    log("\n" + side_by_side({"before": before, "after": after}))
    folder = arguments.out.with_name(f"{arguments.out.name}.run")
    _write_rows(folder, [*rows, (name, after)], arguments)
    write_text(folder / "log.txt", "\n".join(lines) + "\n")
    print(f"\nwritten: {arguments.out}; rows and log: {folder}\n\nnext:")
    named = words_for(arguments.out, header)
    print(f"  python -m solution inspect {shlex.quote(str(arguments.out))}")
    data = f" --data {shlex.quote(arguments.data)}" if arguments.data else ""
    print(f"  python -m solution export {named} --format onnx{data}")


def _check_drop(arguments: argparse.Namespace, loaded: LoadedModel, model: nn.Module) -> None:
    """`InputError` when dev loses more than --max-drop."""
    from solution.evaluate.classify import predictor
    from solution.tasks import task_named

    if arguments.max_drop is None:
        return
    dev, task = loaded.context.need("dev", "--max-drop"), task_named(loaded.header.task)
    nets = (loaded.model, model)
    before, after = (task.judge(predictor(net, loaded.context.device), dev)[task.figure] for net in nets)
    if 100 * (before - after) > arguments.max_drop:
        raise InputError(
            f"{task.title} on dev falls by {100 * (before - after):.1f} points, from {before:.4f} to {after:.4f}, and "
            f"{arguments.max_drop:g} were allowed, so nothing is written: cut less, train longer, or let the command "
            "`shrink` look for how much can go"
        )


def _write_rows(folder: Path, rows: list[tuple[str, dict[str, Any]]], arguments: argparse.Namespace) -> None:
    """A folder that `report` reads: a row for each step, judged on val."""
    from solution.contracts import Row
    from solution.run_folder import RunFolder
    from solution.runtime import commit, hardware

    own = {item.name for item in dataclasses.fields(Row)}
    made = []
    for name, figures in rows:
        fields = {key: value for key, value in figures.items() if key in own}
        quality = {key: value for key, value in figures.items() if key not in own}
        shared: dict[str, Any] = {"seed": arguments.seed, "commit": commit(), "hardware": hardware()}
        made.append(Row(step=name, quality=quality, **shared, **fields))
    run = RunFolder(path=folder)
    settings = {"data.path": arguments.data, "model": arguments.model, "steps": arguments.steps}
    compared = {"before": rows[0][0], "after": rows[-1][0]}
    run.note({"name": "compress", "seed": arguments.seed, **compared, "settings": settings})
    run.write_rows(made)


@contextlib.contextmanager
def _work_folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """Beside --out: what the steps have done so far. It stays when a signal or a kill ends the command."""
    from solution.runtime import write_text

    fed = ("weights", "size", "mean", "std", "resize", "new_head", "pretrained")
    names = ("model", "steps", "settings", "teacher", "data", *fed, "seed")
    words = json.dumps({name: getattr(arguments, name) for name in names}, indent=1, default=str) + "\n"
    folder = arguments.out.with_name(f"{arguments.out.name}.work")
    note = folder / "compress.json"
    if not arguments.resume:
        shutil.rmtree(folder, ignore_errors=True)
    elif note.is_file() and note.read_text(encoding="utf-8") != words:
        raise InputError(f"{folder} was begun with another command: type the same one, or leave --resume out")
    write_text(note, words)
    try:
        yield folder
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)


def _stepped(loaded: LoadedModel, model: nn.Module, step: Step, folder: Path, resume: bool) -> nn.Module:
    """What `step` makes of `model`, from `folder` when a stopped command has made it before."""
    from solution import checkpoint
    from solution.contracts import copied, plans_of, spec_of
    from solution.run_folder import MODEL

    path = folder / MODEL
    if path.is_file():
        return checkpoint.load(path, None if spec_of(model) else loaded.model)[0]
    context = loaded.context

    def load(path: Path) -> Any:
        assert context.load is not None
        return (copied(loaded.model), loaded.header) if str(path) == SELF else context.load(path)

    made = step(model, dataclasses.replace(context, folder=folder, resume=resume, load=load)).cpu()
    checkpoint.save(path, made, dataclasses.replace(loaded.header, plans=plans_of(made)))
    return made


def _measure(arguments: argparse.Namespace, loaded: LoadedModel) -> None:
    """Write and print the table, draw it."""
    from solution.compress.channels.sensitivity import as_text, save_plot, sensitivity
    from solution.runtime import written_whole

    if loaded.loaders is None:
        raise InputError("--sensitivity needs --data: it judges on their dev split")
    table = sensitivity(loaded.model, loaded.context)
    with written_whole(arguments.out / "sensitivity.csv") as path:
        table.to_csv(path, index=False)
    save_plot(table, arguments.out / "sensitivity.png")
    print("\n" + as_text(table))
    print(f"\ntable and picture: {arguments.out / 'sensitivity.csv'}, {arguments.out / 'sensitivity.png'}")
