"""Run a recipe: step, judge, row, repeat.

A run keeps everything in one folder, so that a stop costs one epoch at most:

    recipe.json, rows.json, rows.csv     settings; one row per finished stage
    <stage>/model.safetensors            the stage's checkpoint; model.packed too when the recipe is thorough
    <stage>/model.onnx, model.int8.xml   exported forms of Before and After, where the recipe names such
    <stage>/plan.json, plan.txt          what a structural step decided
    <stage>/history.csv, training.safetensors     one row per epoch; the state to go on from, until the stage is over
    before.safetensors, after.safetensors   the two stages that the recipe compares
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution import checkpoint
from solution.compress.channels.step import median_latency_ms
from solution.compress.parametrized import materialized
from solution.contracts import DETECTION, InputError, Plan, Recipe, Row, Stage, StepContext, StructuralStep, task_of
from solution.data.loaders import Loaders
from solution.evaluate.audit import audit
from solution.evaluate.classify import Predict, classify, predictor
from solution.evaluate.cost import file_bytes, macs, macs_dispatched, params, processor_ms, sparsity
from solution.evaluate.detect import detect
from solution.evaluate.score import Scorer
from solution.evaluate.speed import BenchmarkCase, Speed, Turns, measure
from solution.export import files, shipping
from solution.export.parity import simulates
from solution.export.runtimes import EAGER, case
from solution.report.rows import read_rows, write_rows
from solution.runtime import commit, hardware, seed_everything, set_threads, write_text, written_whole
from solution.settings import settings_of
from solution.train.state import drop_states, seconds_so_far
from solution.train.teachers import net_file

MODEL, PACKED = "model.safetensors", "model.packed"
_TURNS = Turns(rounds=10, seconds=0.1, batches=(1,))
_AT_ONCE = 8
"""Nets that take turns: each is a process that holds its runtime, and a small machine has no room for thirty."""


def run(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    measure_later: bool = False,
    log: Callable[[str], None] = print,
) -> Iterator[Row]:
    """Yield one `Row` per stage as it is finished. With `resume`, finished stages are taken from `out`.

    `measure_later` leaves exports and times to a call with `resume`, perhaps on the machine where the nets will live.
    Raises `InputError` when `out` holds another run, or this one and `resume` is not set.
    """
    processes = _processes(device)
    _check(recipe, out, resume)
    shipping.here(recipe.exports, log)  # what will be left out is better known before the training
    check_requirements(recipe, len(read_rows(out)))
    loaders = opener(recipe.data, recipe.seed)
    for stage in recipe.stages:
        loaders(recipe.size_of(stage.name))  # data that cannot be read, or sizes they cannot have, are better known now
    processes.wait_for_everyone()
    if processes.is_main_process:
        _claim(recipe, out)
    job = Job(recipe=recipe, out=out, loaders=loaders, device=device, resume=resume, log=log)
    rows = read_rows(out)
    yield from rows
    for stage in recipe.stages[len(rows) :]:
        model, seconds = job.step(stage)
        if processes.is_main_process:
            write_rows(out, [*rows, job.row(stage, model, seconds)])
            drop_states(out / stage.name)
        processes.wait_for_everyone()
        rows = read_rows(out)
        yield rows[-1]
    if processes.is_main_process:
        _copy_compared(recipe, out)
        if not measure_later:
            _finish(job, rows)


def opener(data: Any, seed: int, **options: Any) -> Callable[[int], Loaders]:
    """The data at any side in pixels, opened once each."""
    return cache(lambda size: replace(data, size=size).open(seed=seed, **options))


def _processes(device: str) -> Any:
    """The processes that share this run (one, unless it was started by `accelerate launch`)."""
    from accelerate import PartialState

    processes = PartialState(cpu=device == "cpu")
    set_threads()  # the library sets them too when there are several processes
    return processes


def _finish(job: Job, rows: list[Row]) -> None:
    """Write what only a finished run can tell: Before and After exported, and all nets and forms timed in turns."""
    forms = shipping.here(job.recipe.exports, job.log)
    compared = (job.recipe.before, job.recipe.after)
    for place, form in [(place, form) for place, row in enumerate(rows) if row.step in compared for form in forms]:
        rows[place] = job.shipped(rows[place], form)
        write_rows(job.out, rows)  # each may take long
    write_rows(job.out, _timed(job, rows))


def _timed(job: Job, rows: Sequence[Row]) -> list[Row]:
    """`rows` with latency, memory and processor time of one image, nets asked in turns.

    In eager, quantized weights run as the floats that they stand for; nets that only simulate integers have no times.
    Exported forms run as they are.
    """
    thorough = [row.step for row in rows if row.packed_bytes is not None]
    eager = {step for step in thorough if not simulates(checkpoint.load(job.out / step / MODEL)[0])}
    wanted = {row.step: [EAGER] * (row.step in eager) + list(row.exported) for row in rows}
    if all(name in row.latency_ms for row in rows for name in wanted[row.step]):
        return list(rows)
    threads = torch.get_num_threads()
    pairs = [(step, name) for step, names in wanted.items() for name in names]
    pairs.sort(key=lambda pair: len(wanted[pair[0]]) == 1)  # what is compared across runtimes shares its turns
    job.log(f"\none image at a time, in turns: {', '.join(f'{step} ({name})' for step, name in pairs)}")
    cases = [_case(job.out / step / MODEL, name, threads) for step, name in pairs]
    groups = [cases[start : start + _AT_ONCE] for start in range(0, len(cases), _AT_ONCE)]
    speeds = [speed for group in groups for speed in measure(group, _TURNS, log=lambda _: None)]
    timed = [_with_speeds(row, [speed for speed in speeds if speed.model == row.step]) for row in rows]
    return [job.with_processor_time(row) if row.step in eager else row for row in timed]


def _case(path: Path, name: str, threads: int) -> BenchmarkCase:
    """The net at `path` in eager, or in the exported form of this name, called by its stage."""
    stage = path.parent.name
    return case(path, EAGER, threads, stage) if name == EAGER else shipping.case_of(path, name, threads, stage)


def _with_speeds(row: Row, speeds: Sequence[Speed]) -> Row:
    medians = {shipping.name_of(speed): round(speed.percentile_ms(50), 4) for speed in speeds}
    held = {shipping.name_of(speed): speed.peak_bytes for speed in speeds}
    exported = {
        name: said | ({"memory_bytes": held[name]} if name in held else {}) for name, said in row.exported.items()
    }
    memory = held.get(EAGER, row.memory_bytes)
    timed_on = hardware() if speeds else row.timed_on
    return replace(row, latency_ms=row.latency_ms | medians, memory_bytes=memory, exported=exported, timed_on=timed_on)


def _copy_compared(recipe: Recipe, out: Path) -> None:
    for role, name in (("before", recipe.before), ("after", recipe.after)):
        with written_whole(out / f"{role}.safetensors") as path:
            shutil.copyfile(out / name / MODEL, path)


def _said(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON gives it back."""
    return json.loads(json.dumps({"name": recipe.name, "seed": recipe.seed, "settings": settings_of(recipe)}))


def _check(recipe: Recipe, out: Path, resume: bool) -> None:
    path = out / "recipe.json"
    if not path.exists():
        return
    if not resume:
        raise InputError(f"{out} already holds a run: add --resume to go on with it, or choose another --out")
    found, said = json.loads(path.read_text()), _said(recipe)
    if found != said:
        raise InputError(f"{out} holds another run, so it cannot be resumed: {_difference(found, said)}")


def check_requirements(recipe: Recipe, finished: int = 0) -> None:
    """`InputError` unless the nets that all but the `finished` stages read are there, or made on the way: before hours
    are spent.
    """
    for position, stage in enumerate(recipe.stages[finished:], finished):
        earlier = {before.name for before in recipe.stages[:position]}
        for setting, names in stage.step.requires.items():
            if missing := [name for name in names if name not in earlier and not net_file(name).is_file()]:
                raise InputError(
                    f"{stage.name} needs the net {missing[0]}, which is no earlier stage of {recipe.name}, no "
                    "checkpoint and no finished run: train it first, or name yours with "
                    f"--set {stage.name}.{setting}=PATH"
                )


def _claim(recipe: Recipe, out: Path) -> None:
    write_text(out / "recipe.json", json.dumps(_said(recipe), indent=1) + "\n")


def _difference(found: dict[str, Any], said: dict[str, Any]) -> str:
    there = {"name": found["name"], "seed": found["seed"], **found["settings"]}
    here = {"name": said["name"], "seed": said["seed"], **said["settings"]}
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return "; ".join(f"{name} is {there.get(name)} there, {here.get(name)} here" for name in names)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: what all its stages share. `loaders` gives the data at a side in pixels."""

    recipe: Recipe
    out: Path
    loaders: Callable[[int], Loaders]
    device: str
    resume: bool
    log: Callable[[str], None]

    def shown(self, stage: Stage) -> Loaders:
        """The data as `stage` sees them."""
        return self.loaders(self.recipe.size_of(stage.name))

    def step(self, stage: Stage) -> tuple[nn.Module, float]:
        """The model that `stage` makes, and the seconds it took. A structural step says its plan first."""
        folder = self.out / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        self.log(f"\n{stage.name}: {stage.step}")
        # What a stopped run has done of this stage counts as well.
        start = time.perf_counter() - (seconds_so_far(folder) if self.resume else 0)
        source, context = self.source(stage), self.context(stage)
        if not isinstance(stage.step, StructuralStep):
            return stage.step(source, context), time.perf_counter() - start
        plan = stage.step.plan(source, context)
        self.log(str(plan))
        _write_plan(folder, plan)
        return stage.step.apply(plan, source, context), time.perf_counter() - start

    def row(self, stage: Stage, model: nn.Module, seconds: float) -> Row:
        """Judge the model and write its checkpoint."""
        path, figures = self.out / stage.name / MODEL, self.judge(stage, model)
        header = self.header(stage, model, figures)
        checkpoint.save(path, model, header)
        return Row(
            step=stage.name,
            bytes=file_bytes(path),
            seconds=round(seconds, 1),
            seed=self.recipe.seed,
            commit=commit(),
            hardware=hardware(self.device),
            **figures,
            **(self.effort(stage, model, header) if self.recipe.thorough else {}),
        )

    def effort(self, stage: Stage, model: nn.Module, header: checkpoint.Header) -> dict[str, Any]:
        """The figures of a row that take time. Writes the packed file."""
        path = self.out / stage.name / PACKED
        files.save(path, model, header)
        found: dict[str, Any] = {"packed_bytes": file_bytes(path)}
        if self.device != "cpu" and not simulates(model):
            image = self.example(stage)[:1]
            found["latency_ms"] = {self.device: round(median_latency_ms(_plain(model), image, self.device), 4)}
        return found

    def with_processor_time(self, row: Row) -> Row:
        """The row with the processor time that one image takes its net."""
        model, example = checkpoint.load(self.out / row.step / MODEL)[0], self.example(self.recipe.stage(row.step))
        return replace(row, cpu_ms=round(processor_ms(_plain(model), example), 4))

    def shipped(self, row: Row, form: str) -> Row:
        """The row of Before or After with the exported form, unless it has it or cannot."""
        path, stage = self.out / row.step / MODEL, self.recipe.stage(row.step)
        if row.packed_bytes is None:
            row = replace(row, **self.effort(stage, *checkpoint.load(path)))
        if form in row.exported:
            return row
        said = shipping.ship(path, form, self.shown(stage), self.log)
        return replace(row, exported=row.exported | {form: said}) if said else row

    def source(self, stage: Stage) -> nn.Module:
        """The model that `stage` goes on from."""
        source = self.recipe.source(stage.name)
        path = self.out / source / MODEL
        if source != Stage.NEW and not stage.fresh:
            return checkpoint.load(path)[0]
        seed_everything(self.recipe.seed)
        if stage.fresh:
            return checkpoint.rebuilt(checkpoint.read_header(path), path)
        return (stage.model or self.recipe.model).build(len(self.shown(stage).info.classes))

    def load(self, path: Path) -> tuple[nn.Module, checkpoint.Header]:
        """The net and header of a checkpoint, packed or not; a stage's name stands for what it left."""
        own = self.out / path / MODEL
        return files.load(own if own.is_file() else path)

    def context(self, stage: Stage) -> StepContext:
        """What the recipe's data offer to the step of `stage`."""
        return self.shown(stage).context(
            load=self.load,
            device=self.device,
            seed=self.recipe.seed,
            folder=self.out / stage.name,
            resume=self.resume,
            log=self.log,
        )

    def example(self, stage: Stage) -> torch.Tensor:
        """Two real images, (2, 3, S, S)."""
        return next(iter(self.shown(stage).calibration))[0][:2].contiguous()

    def judge(self, stage: Stage, model: nn.Module) -> dict[str, Any]:
        """The figures of a row that are the model's own; quality is measured on the val split."""
        quality = self.quality(stage, predictor(model, self.device))
        cost = scored(model, self.example(stage), quality.get("f1"), self.log)
        return {**cost, "params": params(model), "sparsity": sparsity(model), "quality": quality}

    def quality(self, stage: Stage, predict: Predict) -> dict[str, float]:
        """What `predict` is worth on val; a detector that nothing was fitted in in this run is judged on train too."""
        loaders = self.shown(stage)
        if task_of(self.recipe.model) != DETECTION:
            return classify(predict, loaders.val).quality()
        found = detect(predict, loaders.val).quality()
        if self.fitted(stage):
            return found
        seen = detect(predict, loaders.seen).quality()
        return found | {f"train_{name}": value for name, value in seen.items()}

    def fitted(self, stage: Stage) -> bool:
        """Whether weights of the net of `stage` were fitted to pictures of train in this run."""
        source = self.recipe.source(stage.name)
        before = [other for other in self.recipe.stages if other.name == source]
        return stage.step.uses_train_data or any(map(self.fitted, before))

    def header(self, stage: Stage, model: nn.Module, figures: dict[str, Any]) -> checkpoint.Header:
        """What the checkpoint of `stage` says."""
        loaders = self.shown(stage)
        return checkpoint.header_of(
            model,
            classes=loaders.info.classes,
            mean=loaders.mean,
            std=loaders.std,
            size=self.recipe.size_of(stage.name),
            data=loaders.info.title,
            recipe={"name": self.recipe.name, "seed": self.recipe.seed, "stage": stage.name},
            figures=figures,
        )


def _plain(model: nn.Module) -> nn.Module:
    """A copy on the CPU, as it runs where it ships: it was judged where it was trained."""
    return copy.deepcopy(materialized(model)).cpu()


def scored(
    model: nn.Module, example: torch.Tensor, f1: float | None, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """{"macs", "macs_dispatched", "score"}. The score is None without `f1`, or when the audit refuses the net.

    `say` takes the audit's reasons, and a warning when `f1` is near the cliff.
    """
    cost = {"macs": macs(model, example), "macs_dispatched": macs_dispatched(model, example)}
    if f1 is None:
        return cost | {"score": None}
    verdict, scorer = audit(model, example), Scorer()
    if not verdict.ok:
        log(f"no score, because the audit does not trust the count of MACs; {verdict}")
        return cost | {"score": None}
    if warning := scorer.warning(f1):
        log(f"warning: {warning}")
    return cost | {"score": scorer(cost["macs"], f1)}


def _write_plan(folder: Path, plan: Plan) -> None:
    for name, text in (("plan.json", json.dumps(plan.to_fields(), indent=1)), ("plan.txt", f"{plan}\n")):
        write_text(folder / name, text)
