"""`shrink`, the verb: a net and pictures in, the smallest net that keeps its quality out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from solution import checkpoint
from solution.contracts import Batches, InputError
from solution.export.runtimes import import_runtime
from solution.locks import claimed
from solution.run_folder import ROWS, data_facts
from solution.runtime import check_writable, commit, hardware, set_threads, write_text
from solution.shrink.choice import Choice, choose, settled
from solution.shrink.goal import LIMITS, Goal
from solution.shrink.result import Line, Result, write
from solution.shrink.rounds import header_for
from solution.shrink.search import Search
from solution.shrink.ship import OF_PYTORCH
from solution.shrink.subject import Evaluate, OwnLoss, Subject, of_batches

SMALLER, WORK = "smaller", "work"


def shrink(
    net: nn.Module,
    example: Any,
    *,
    train: Batches | None = None,
    dev: Batches | None = None,
    val: Batches | None = None,
    calibration: Batches | None = None,
    evaluate: Evaluate | None = None,
    loss: OwnLoss | None = None,
    out: str | Path = "smaller",
    resume: bool = False,
    log: Callable[[str], None] = print,
    **options: Any,
) -> Result:
    """The smallest net that keeps the quality of `net`, exported, measured and judged.

    example      one batch of inputs (B, C, S, S), normalized as the net wants them
    train        learns: (images, labels), or images alone
    dev, val     dev decides, val judges; without dev every fifth batch of train decides
    calibration  a few hundred pictures that int8 is calibrated on; without, some of train
    evaluate     quality of anything that maps images to outputs, on batches: a fraction of 1; None: macro F1, or
                 mIoU where targets are masks (B, H, W)
    loss         of outputs and targets; None: cross-entropy
    out          folder for everything that is made
    options      max_drop, macs, latency, size, ram, hours, passes, for_ (the runtime), as in `Goal`; classes, mean and
                 std of the exported file; device, seed
    """
    fields = {item.name for item in dataclasses.fields(Goal)}
    options = {"runtime" if name == "for_" else name: value for name, value in options.items()}
    goal = Goal(**{name: options.pop(name) for name in list(options) if name in fields})
    if unknown := options.keys() - {"classes", "mean", "std", "device", "seed"}:
        raise InputError(f"shrink has no option {sorted(unknown)[0]!r}; see help(fw.shrink)")
    splits = {"train": train, "dev": dev, "val": val, "calibration": calibration}
    subject = of_batches(net, example, splits, evaluate=evaluate, loss=loss, **options)
    return run(subject, goal, Path(out), resume=resume, log=log)


def run(
    subject: Subject,
    goal: Goal,
    out: Path,
    *,
    resume: bool = False,
    log: Callable[[str], None] = print,
    about: Mapping[str, Any] | None = None,
) -> Result:
    """Search, choose, judge, write. `about` is what the folder notes besides: {"command": ...}.

    `InputError` when `out` holds another search, or when nothing can come of this one; then nothing is left behind.
    """
    check(goal, out, resume)
    set_threads()
    with claimed(out):
        work = _begun(subject, goal, out, resume)
        try:
            search = Search(subject, goal, work, log)
            search.run()
            choice, lines = settled(search, choose(search))
        except InputError:
            shutil.rmtree(work)
            with contextlib.suppress(OSError):
                out.rmdir()  # when nothing else is in it
            raise
        return _written(search, choice, lines, out, about or {})


def check(goal: Goal, out: Path, resume: bool) -> None:
    """`InputError` for what can be known before anything is read: a missing runtime, a place that is taken."""
    if goal.runtime not in OF_PYTORCH:
        import_runtime(goal.runtime)
    check_writable(out / ROWS)
    if (out / ROWS).exists() and not resume:
        raise InputError(f"{out} already holds a result: add --resume to see it again, or choose another --out")


def _begun(subject: Subject, goal: Goal, out: Path, resume: bool) -> Path:
    """The work folder, with a note of what it is for."""
    words = {"goal": dataclasses.asdict(goal), "seed": subject.seed, "classes": subject.header.classes,
             "size": subject.header.size, "net": _key(subject.net)}  # fmt: skip
    text = json.dumps(words, indent=1) + "\n"
    work, note = out / WORK, out / WORK / "goal.json"
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    elif note.is_file() and note.read_text(encoding="utf-8") != text:
        raise InputError(f"{out} was begun with another net or goal: say the same, or leave --resume away")
    write_text(note, text)
    return work


def _key(net: nn.Module) -> str:
    """Of its weights."""
    import hashlib

    content = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        content.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def _written(search: Search, choice: Choice, lines: list[Line], out: Path, about: Mapping[str, Any]) -> Result:
    subject, goal, best = search.subject, search.goal, choice.chosen
    cut = search.cut_of(best.candidate)
    suffix = best.file.path.suffix
    for path in best.file.path.parent.glob(f"{best.file.path.stem}.*"):
        shutil.copyfile(path, out / f"{SMALLER}{path.suffix}")
    chosen = lines[1]
    figures = {"macs": chosen.macs, "params": chosen.params, "quality": dict(chosen.quality)}
    checkpoint.save(out / f"{SMALLER}.safetensors", cut.net, header_for(cut, subject, figures=figures))
    points = [{"name": one.name, "macs": one.costs["macs"], "dev": None if math.isnan(one.dev) else one.dev}
              for one in (search.whole, *search.tried)]  # fmt: skip
    passed, text = _verdict(search, lines, limits_missed(search, chosen))
    result = Result(
        net=cut.net.cpu().eval(),
        file=out / f"{SMALLER}{suffix}",
        out=out,
        lines=tuple(lines),
        passed=passed,
        verdict=text,
        runtime=search.runtime,
        title=f"agreement ({subject.task.title})" if subject.agreement else subject.task.title,
        points=tuple(points),
        notes=_notes(search, choice),
    )
    shared: dict[str, Any] = {"seconds": round(search.journal.seconds(), 1), "seed": subject.seed, "commit": commit(),
                              "hardware": hardware(subject.device)}  # fmt: skip
    rows = [line.row(search.runtime, **(shared if line is chosen else shared | {"seconds": 0.0})) for line in lines]
    known = subject.given.train is not None and subject.views is not None and subject.given.info.counts
    data = data_facts(subject.given) if known else {}
    settings = {**dataclasses.asdict(goal), **about}
    write(result, rows, {"seed": subject.seed, "settings": settings, "data": data})
    search.log(f"\n{result}\n")
    return result


def limits_missed(search: Search, line: Line) -> list[str]:
    """Limits that the file exceeds, in words."""
    limits = search.goal.limits(search.before())
    costs = {"macs": line.macs, "latency": line.ms, "size": line.bytes, "ram": line.ram}
    return [f"{name} {costs[name]:,.4g} (limit {limit:,.4g})" for name, limit in limits.items() if costs[name] > limit]


def _verdict(search: Search, lines: list[Line], missed: list[str]) -> tuple[bool, str]:
    """Whether the chosen line keeps what was asked, and the line that says so."""
    goal, before, chosen = search.goal, lines[0], lines[1]
    wanted = f"at most {goal.max_drop:g} points"
    limits = ", ".join(f"{name} {getattr(goal, name)}" for name in LIMITS if getattr(goal, name) is not None)
    wanted += f", {limits}" if limits else ""
    cost = (f"{chosen.macs / before.macs:.0%} of the MACs, {chosen.bytes / before.bytes:.0%} of the bytes, "
            f"{chosen.ms / before.ms:.0%} of the time")  # fmt: skip
    if chosen.drop is None:
        how = "quality is not known, for there are no pictures"
        return not missed, f"{'FAIL' if missed else 'NOT JUDGED'} {wanted}: {cost}; {how}" + _and(missed)
    spread = f" (95 % interval {0 - chosen.drop_interval[1]:+.2f} to {0 - chosen.drop_interval[0]:+.2f})" if (
        chosen.drop_interval) else ""  # fmt: skip
    lost = f"quality {0 - chosen.drop:+.2f} points{spread} at {cost}"
    passed = chosen.drop <= goal.max_drop and not missed
    return (
        passed,
        f"PASS {wanted}: {lost}" if passed else f"FAIL {wanted}, the closest was {chosen.name}: {lost}" + _and(missed),
    )


def _and(missed: list[str]) -> str:
    return f"; beyond its limit: {', '.join(missed)}" if missed else ""


def _notes(search: Search, choice: Choice) -> tuple[str, ...]:
    """What cannot be known, and what speaks against the verdict."""
    subject, given, notes = search.subject, search.subject.given, []
    if search.runtime != search.goal.runtime:
        notes.append(f"The net cannot be exported for {search.goal.runtime}: files are checkpoints, timed in PyTorch.")
    if given.dev is None:
        notes.append("No pictures were given: layers are cut by their weights alone, and nobody knows what that costs.")
        return tuple(notes)
    if subject.agreement:
        notes.append(
            "There are no labels: quality is how often the file names the class that the net as it came names; whether "
            "that class is right is not known."
        )
    if choice.refused:
        notes.append(
            f"Dev had chosen {choice.refused}, which val refused: the net as it came ships, in the smallest form that "
            "keeps its quality. More photos or more --hours may bring more."
        )
    elif not choice.kept and not search.goal.limited:
        notes.append("No smaller net and no smaller file kept the quality on dev: the net is given back as it came.")
    elif not choice.kept:
        dropped = search.drop(choice.chosen.file.dev)
        notes.append(
            f"On dev, which decides, no net kept all that was asked: the closest was taken ({0 - dropped:+.1f} points "
            "there). Where val says otherwise, there may be too few pictures: give more, or --hours."
        )
    if given.val is given.dev:
        notes.append("No val split was given: the verdict is on dev, which also decided, so it flatters.")
    return tuple(notes)
