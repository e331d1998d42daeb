"""Run a recipe: step, judge, row, repeat.

A run keeps everything in one folder (`solution.run_folder`), so that a stop costs one epoch at most.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution import checkpoint
from solution.compress.parametrized import materialized
from solution.contracts import CLASSIFICATION, InputError, Recipe, Row, Stage, StepContext, StructuralStep, task_of
from solution.data.loaders import Loaders
from solution.evaluate.cost import file_bytes, median_latency_ms, processor_ms
from solution.evaluate.speed import BenchmarkCase, Speed, Turns, measure
from solution.export import files, shipping
from solution.export.parity import simulates
from solution.export.runtimes import EAGER, case
from solution.input_spec import InputSpec
from solution.locks import claimed
from solution.models.outputs import count_outputs
from solution.models.weights import built
from solution.opening import load
from solution.run_folder import RunFolder, after_in, data_facts
from solution.runtime import commit, hardware, seed_everything
from solution.settings import in_short
from solution.tasks import judge, score, task_named
from solution.train.processes import joined
from solution.train.progress import Place, busy, placed

_TURNS = Turns(rounds=10, seconds=0.1, batches=(1,))
_NAMES = 9
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
    Raises `InputError` when `out` holds another run, this one and `resume` is not set, or one that is running now.
    """
    processes = joined(device)
    with claimed(out) if processes.is_main_process else nullcontext():
        yield from _run(recipe, RunFolder(path=out), processes, measure_later, device=device, resume=resume, log=log)


def _run(recipe: Recipe, folder: RunFolder, processes: Any, measure_later: bool, **shared: Any) -> Iterator[Row]:
    log = shared["log"]
    folder.check(recipe, shared["resume"])
    for form, reason in shipping.missing(recipe.exports).items():  # better known before the training
        log(f"{form} is left out: {reason}")
    rows = folder.rows()
    check_requirements(recipe, len(rows))
    # Data that cannot be read, or sizes they cannot have, are better known now as well.
    loaders = opener(recipe.data, recipe.seed)
    stages = stage_runs(recipe, recipe.stages, folder, loaders, **shared)
    _check_cuts(recipe, stages, len(rows))
    processes.wait_for_everyone()
    log(_head(next(iter(stages.values())).loaders))
    if processes.is_main_process:
        folder.begin(recipe, data_facts(next(iter(stages.values())).loaders), log)
        for stage in recipe.stages[: len(rows)]:  # a kill may have come between its row and this
            folder.drop_states(stage.name)
    yield from rows
    for stage_run in list(stages.values())[len(rows) :]:
        later = recipe.stages[len(rows) + 1 :]
        epochs_after = sum(getattr(one.step, "epochs", 0) for one in later)
        with placed(Place(name=stage_run.place, epochs_after=epochs_after)):
            model, seconds = stage_run.step()
            if processes.is_main_process:
                with busy(f"judging {stage_run.name}"):
                    row = stage_run.row(model, seconds)
                folder.write_rows([*rows, row])
                folder.drop_states(stage_run.name)
        processes.wait_for_everyone()
        rows = folder.rows()
        yield rows[-1]
    if processes.is_main_process:
        folder.copy_compared(recipe)
        if not measure_later:
            _finish(stages, rows)


def opener(data: Any, seed: int, **options: Any) -> Callable[[int], Loaders]:
    """The data at any side in pixels, opened once each."""
    return cache(lambda size: replace(data, size=size).open(seed=seed, **options))


def stage_runs(
    recipe: Recipe, stages: Sequence[Stage], folder: RunFolder, loaders: Callable[[int], Loaders], **shared: Any
) -> dict[str, StageRun]:
    """{name: the stage, ready to run} of some `stages` of the recipe. `loaders` gives the data at a side in pixels."""
    return {
        stage.name: StageRun(
            recipe=recipe, stage=stage, folder=folder, loaders=loaders(recipe.size_of(stage.name)), **shared
        )
        for stage in stages
    }


def _head(loaders: Loaders) -> str:
    """The data in a line: name, classes, pictures."""
    names = loaders.info.classes
    splits = [split for split in ("train", "dev", "val") if getattr(loaders, split) is not None]
    shown = ", ".join([*names[:_NAMES], *(["..."] if len(names) > _NAMES else [])])
    counts = ", ".join(f"{loaders.num_images(split):,} {split}" for split in splits)
    return f"{loaders.info.title}: {len(names)} classes ({shown}); pictures: {counts}"


def check_requirements(recipe: Recipe, finished: int = 0) -> None:
    """`InputError` unless the nets that all but the `finished` stages read are there, or made on the way: before hours
    are spent.
    """
    for position, stage in enumerate(recipe.stages[finished:], finished):
        earlier = {before.name for before in recipe.stages[:position]}
        for setting, names in stage.step.requires.items():
            if missing := [
                name for name in names if name not in earlier and not after_in(Path(name)).is_file() and ":" not in name
            ]:
                raise InputError(
                    f"{stage.name} needs the net {missing[0]}, which is no earlier stage of {recipe.name}, no "
                    "checkpoint and no finished run: train it first, or name yours with "
                    f"--set {stage.name}.{setting}=PATH"
                )


def stages_to(recipe: Recipe, name: str) -> tuple[Stage, ...]:
    """The stages that lead from a fresh net to the stage called `name`, in order."""
    found = []
    while name != Stage.NEW:
        found.append(recipe.stage(name))
        name = recipe.source(name)
    return tuple(reversed(found))


def _check_cuts(recipe: Recipe, stages: Mapping[str, StageRun], finished: int) -> None:
    """`InputError` for blocks that the recipe's nets do not have. What a cut of another kind makes of them is not known
    before it is made.
    """
    for stage in recipe.stages[finished:]:
        way = stages_to(recipe, stage.name)
        cuts = [one.step for one in way if isinstance(one.step, StructuralStep)]
        if not isinstance(stage.step, StructuralStep) or not all(step.foreseen for step in cuts):
            continue
        side, channels = recipe.size_of(stage.name), len(stages[stage.name].loaders.mean)
        context = StepContext(example=torch.zeros(2, channels, side, side), log=lambda _: None)
        net = stages[way[0].name].source().eval()
        for step in cuts:
            net = step.cost_only(net, context)


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """One stage of a run: where its net comes from, what its step may use, what is measured of what it makes.

    loaders  the data as the stage sees them
    """

    recipe: Recipe
    stage: Stage
    folder: RunFolder
    loaders: Loaders
    device: str = "cpu"
    resume: bool = False
    log: Callable[[str], None] = print

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def place(self) -> str:
        """Such as "stage 2 of 4"."""
        return f"stage {self.recipe.stages.index(self.stage) + 1} of {len(self.recipe.stages)}"

    @property
    def path(self) -> Path:
        """Its checkpoint."""
        return self.folder.checkpoint(self.name)

    def step(self) -> tuple[nn.Module, float]:
        """The model that the stage makes, and the seconds it took. A structural step prints its plan first."""
        self.folder.stage(self.name).mkdir(parents=True, exist_ok=True)
        self.log(f"\n{self.place}, {self.name}: {in_short(self.stage.step)}")
        # What a stopped run has done of this stage counts as well.
        start = time.perf_counter() - (self.folder.seconds_so_far(self.name) if self.resume else 0)
        source, context, step = self.source(), self.context(), self.stage.step
        if not isinstance(step, StructuralStep):
            return step(source, context), time.perf_counter() - start
        plan = step.plan(source, context)
        self.log(str(plan))
        self.folder.write_plan(self.name, plan)
        return step.apply(plan, source, context), time.perf_counter() - start

    def source(self) -> nn.Module:
        """The model that the stage goes on from."""
        source = self.recipe.source(self.name)
        path = self.folder.checkpoint(source)
        if source != Stage.NEW and not self.stage.fresh:
            return checkpoint.load(path)[0]
        seed_everything(self.recipe.seed)
        if self.stage.fresh:
            return checkpoint.rebuilt(checkpoint.read_header(path), path)
        settings, loaders = self.stage.model or self.recipe.model, self.loaders
        net = built(settings, len(loaders.info.classes))
        if task_of(settings) == CLASSIFICATION:
            seen = InputSpec(mean=loaders.mean, std=loaders.std, size=self.recipe.size_of(self.name))
            count_outputs(net, seen, getattr(settings, "name", type(settings).__name__), "--set data.size={}")
        return net

    def context(self) -> StepContext:
        """What the recipe's data offer to the step."""
        return self.loaders.context(
            load=self.load,
            device=self.device,
            seed=self.recipe.seed,
            folder=self.folder.stage(self.name),
            resume=self.resume,
            log=self.log,
        )

    def load(self, path: Path) -> tuple[nn.Module, checkpoint.Header]:
        """The net and header of a checkpoint, packed or not; a stage's name stands for what it left."""
        own = self.folder.checkpoint(str(path))
        return load(own if own.is_file() else path)

    def row(self, model: nn.Module, seconds: float) -> Row:
        """Judge the model on the val split and write its checkpoint."""
        task = task_named(task_of(self.recipe.model))
        batches = {"": self.loaders.opened("val")}
        if task.judges_train and not _is_fitted(self.recipe, self.stage):
            batches["train_"] = self.loaders.opened("seen")
        figures = judge(model, self.loaders.example(), batches, task=task, device=self.device)
        if self.recipe.score:
            figures["score"] = score(model, self.loaders.example(), figures, self.log)
        if task.at_chance(figures["quality"], self.loaders.info.counts.get("val", {})):
            self.log(f"{self.name} is at chance level: a guess does as well ({task.title} of val)")
        header = self.header(model, figures)
        checkpoint.save(self.path, model, header)
        return Row(
            step=self.name,
            bytes=file_bytes(self.path),
            seconds=round(seconds, 1),
            seed=self.recipe.seed,
            commit=commit(),
            hardware=hardware(self.device),
            **figures,
            **(self.effort(model, header) if self.recipe.thorough else {}),
        )

    def effort(self, model: nn.Module, header: checkpoint.Header) -> dict[str, Any]:
        """The figures of a row that take time. Writes the packed file."""
        path = self.folder.packed(self.name)
        files.save(path, model, header)
        found: dict[str, Any] = {"packed_bytes": file_bytes(path)}
        if self.device != "cpu" and not simulates(model):
            ms = median_latency_ms(_plain(model), self.loaders.example()[:1], self.device)
            found["latency_ms"] = {self.device: round(ms, 4)}
        return found

    def with_processor_time(self, row: Row) -> Row:
        """The row with the processor time that one image takes its net."""
        model = _plain(checkpoint.load(self.path)[0])
        return replace(row, cpu_ms=round(processor_ms(model, self.loaders.example()), 4))

    def shipped(self, row: Row, form: str) -> Row:
        """The row of Before or After with the exported form, or with the reason why it has none."""
        if row.packed_bytes is None:
            row = replace(row, **self.effort(*checkpoint.load(self.path)))
        if form in row.exported:
            return row
        left_out = {name: reason for name, reason in row.left_out.items() if name != form}
        try:
            if reason := shipping.missing((form,)).get(form):
                raise InputError(reason)
            figures = shipping.ship(self.path, form, self.loaders, self.log)
        except InputError as error:
            self.log(f"{form} is left out: {error}")
            return replace(row, left_out=left_out | {form: str(error)})
        return replace(row, left_out=left_out, exported=row.exported | {form: figures})

    def header(self, model: nn.Module, figures: dict[str, Any]) -> checkpoint.Header:
        """The header of the stage's checkpoint."""
        loaders = self.loaders
        return checkpoint.header_of(
            model,
            classes=loaders.info.classes,
            mean=loaders.mean,
            std=loaders.std,
            size=self.recipe.size_of(self.name),
            data=loaders.info.title,
            recipe={"name": self.recipe.name, "seed": self.recipe.seed, "stage": self.name},
            figures=figures,
        )


def _is_fitted(recipe: Recipe, stage: Stage) -> bool:
    """Whether weights of the net of `stage` were fitted to pictures of train in this run."""
    source = recipe.source(stage.name)
    return stage.step.uses_train_data or (source != Stage.NEW and _is_fitted(recipe, recipe.stage(source)))


def _plain(model: nn.Module) -> nn.Module:
    """A copy on the CPU, as it runs where it ships: it was judged where it was trained."""
    return copy.deepcopy(materialized(model)).cpu()


def _finish(stages: Mapping[str, StageRun], rows: list[Row]) -> None:
    """Write what only a finished run has: Before and After exported, and all nets and forms timed in turns."""
    one = next(iter(stages.values()))
    compared, forms = (one.recipe.before, one.recipe.after), one.recipe.exports
    for place, form in [(place, form) for place, row in enumerate(rows) if row.step in compared for form in forms]:
        rows[place] = stages[rows[place].step].shipped(rows[place], form)
        one.folder.write_rows(rows)  # each may take long
    one.folder.write_rows(_timed(stages, rows))


def _timed(stages: Mapping[str, StageRun], rows: Sequence[Row]) -> list[Row]:
    """`rows` with latency, memory and processor time of one image, nets in turns.

    In eager, quantized weights run as the floats that they stand for; nets that only simulate integers have no times.
    Exported forms run as they are.
    """
    thorough = [row.step for row in rows if row.packed_bytes is not None]
    eager = {step for step in thorough if not simulates(checkpoint.load(stages[step].path)[0])}
    wanted = {row.step: [EAGER] * (row.step in eager) + list(row.exported) for row in rows}
    if all(name in row.latency_ms for row in rows for name in wanted[row.step]):
        return list(rows)
    threads = torch.get_num_threads()
    pairs = [(step, name) for step, names in wanted.items() for name in names]
    pairs.sort(key=lambda pair: len(wanted[pair[0]]) == 1)  # what is compared across runtimes shares its turns
    listed = ", ".join(f"{step} ({name})" for step, name in pairs)
    next(iter(stages.values())).log(f"\none image at a time, in turns: {listed}")
    cases = [_case(stages[step].path, name, threads) for step, name in pairs]
    groups = [cases[start : start + _AT_ONCE] for start in range(0, len(cases), _AT_ONCE)]
    speeds = [speed for group in groups for speed in measure(group, _TURNS, log=lambda _: None)]
    timed = [_with_speeds(row, [speed for speed in speeds if speed.model == row.step]) for row in rows]
    return [stages[row.step].with_processor_time(row) if row.step in eager else row for row in timed]


def _case(path: Path, name: str, threads: int) -> BenchmarkCase:
    """The net at `path` in eager, or in the exported form of this name, called by its stage."""
    stage = path.parent.name
    return case(path, EAGER, threads, stage) if name == EAGER else shipping.case_of(path, name, threads, stage)


def _with_speeds(row: Row, speeds: Sequence[Speed]) -> Row:
    medians = {shipping.name_of(speed): round(speed.percentile_ms(50), 4) for speed in speeds}
    held = {shipping.name_of(speed): speed.peak_bytes for speed in speeds}
    exported: dict[str, Any] = {
        name: figures | ({"memory_bytes": held[name]} if name in held else {}) for name, figures in row.exported.items()
    }
    memory = held.get(EAGER, row.memory_bytes)
    timed_on = hardware() if speeds else row.timed_on
    return replace(row, latency_ms=row.latency_ms | medians, memory_bytes=memory, exported=exported, timed_on=timed_on)
