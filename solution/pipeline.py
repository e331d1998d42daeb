"""Run a recipe: step, judge, row, repeat.

A run keeps everything in one folder, so that a stop costs one epoch at most:

    recipe.json, rows.json, rows.csv     settings; one row per finished stage
    <stage>/model.safetensors            the stage's checkpoint
    <stage>/plan.json, plan.txt          what a structural step decided
    <stage>/history.csv, training.safetensors     one row per epoch; the state to go on from
    before.safetensors, after.safetensors   the two stages that the recipe compares
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution import checkpoint
from solution.contracts import Given, InputError, Plan, Recipe, Row, Stage, StructuralStep
from solution.dataloader import Loaders
from solution.evaluate.audit import audit
from solution.evaluate.classify import classify, predictor
from solution.evaluate.cost import file_bytes, macs, macs_dispatched, params, sparsity
from solution.evaluate.score import Scorer
from solution.knobs import knobs
from solution.report.rows import read_rows, write_rows
from solution.runtime import commit, hardware, seed_everything, set_threads, written_whole

MODEL = "model.safetensors"


def run(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Iterator[Row]:
    """Yield one `Row` per stage as it is finished. With `resume`, finished stages are taken from `out`.

    Raises `InputError` when `out` holds another run, or this one and `resume` is not set.
    """
    processes = _processes(device)
    _check(recipe, out, resume)
    loaders = recipe.data.open(seed=recipe.seed)
    processes.wait_for_everyone()
    if processes.is_main_process:
        _claim(recipe, out)
    job = Job(recipe=recipe, out=out, loaders=loaders, device=device, resume=resume, say=say)
    rows = read_rows(out)
    yield from rows
    for stage in recipe.stages[len(rows) :]:
        model, seconds = job.step(stage)
        if processes.is_main_process:
            write_rows(out, [*rows, job.row(stage, model, seconds)])
        processes.wait_for_everyone()
        rows = read_rows(out)
        yield rows[-1]
    if processes.is_main_process:
        _copy_compared(recipe, out)


def _processes(device: str) -> Any:
    """The processes that share this run (one, unless it was started by `accelerate launch`)."""
    from accelerate import PartialState

    processes = PartialState(cpu=device == "cpu")
    set_threads()  # the library sets them too when there are several processes
    return processes


def _copy_compared(recipe: Recipe, out: Path) -> None:
    for role, name in (("before", recipe.before), ("after", recipe.after)):
        with written_whole(out / f"{role}.safetensors") as path:
            shutil.copyfile(out / name / MODEL, path)


def _said(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON gives it back."""
    return json.loads(json.dumps({"name": recipe.name, "seed": recipe.seed, "knobs": knobs(recipe)}))


def _check(recipe: Recipe, out: Path, resume: bool) -> None:
    path = out / "recipe.json"
    if not path.exists():
        return
    if not resume:
        raise InputError(f"{out} already holds a run: add --resume to go on with it, or choose another --out")
    found, said = json.loads(path.read_text()), _said(recipe)
    if found != said:
        raise InputError(f"{out} holds another run, so it cannot be resumed: {_difference(found, said)}")


def _claim(recipe: Recipe, out: Path) -> None:
    with written_whole(out / "recipe.json") as path:
        path.write_text(json.dumps(_said(recipe), indent=1) + "\n")


def _difference(found: dict[str, Any], said: dict[str, Any]) -> str:
    there = {"name": found["name"], "seed": found["seed"], **found["knobs"]}
    here = {"name": said["name"], "seed": said["seed"], **said["knobs"]}
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return "; ".join(f"{name} is {there.get(name)} there, {here.get(name)} here" for name in names)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: what all its stages share."""

    recipe: Recipe
    out: Path
    loaders: Loaders
    device: str
    resume: bool
    say: Callable[[str], None]

    def step(self, stage: Stage) -> tuple[nn.Module, float]:
        """The model that `stage` makes, and the seconds it took. A structural step says its plan first."""
        folder = self.out / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        self.say(f"\n{stage.name}: {stage.step}")
        start = time.perf_counter()
        source, given = self.source(stage.name), self.given(folder)
        if not isinstance(stage.step, StructuralStep):
            return stage.step(source, given), time.perf_counter() - start
        plan = stage.step.plan(source, given)
        self.say(str(plan))
        _write_plan(folder, plan)
        return stage.step.apply(plan, source, given), time.perf_counter() - start

    def row(self, stage: Stage, model: nn.Module, seconds: float) -> Row:
        """Judge the model and write its checkpoint."""
        path, figures = self.out / stage.name / MODEL, self.judge(model)
        checkpoint.save(path, model, self.header(stage, model, figures))
        return Row(
            step=stage.name,
            bytes=file_bytes(path),
            seconds=round(seconds, 1),
            seed=self.recipe.seed,
            commit=commit(),
            hardware=hardware(),
            **figures,
        )

    def source(self, name: str) -> nn.Module:
        """The model that stage `name` goes on from."""
        source = self.recipe.source(name)
        if source != Stage.NEW:
            return checkpoint.load(self.out / source / MODEL)[0]
        seed_everything(self.recipe.seed)
        return self.recipe.model.build(len(self.loaders.card.classes))

    def given(self, folder: Path) -> Given:
        """What the recipe's data offer to a step that keeps its files in `folder`."""
        loaders = self.loaders
        return Given(
            example=self.example(),
            train=loaders.train,
            choose=loaders.choose,
            calibration=loaders.calibration,
            classes=loaders.card.classes,
            counts=tuple(loaders.card.counts["train"].values()),
            load=checkpoint.load,
            device=self.device,
            seed=self.recipe.seed,
            folder=folder,
            resume=self.resume,
            say=self.say,
        )

    def example(self) -> torch.Tensor:
        """Two real images, (2, 3, S, S)."""
        return next(iter(self.loaders.calibration))[0][:2].contiguous()

    def judge(self, model: nn.Module) -> dict[str, Any]:
        """The figures of a row that are the model's own; quality is measured on the val split."""
        judged = classify(predictor(model, self.device), self.loaders.val)
        cost = scored(model, self.example(), judged.f1, self.say)
        return {**cost, "params": params(model), "sparsity": sparsity(model), "quality": judged.quality()}

    def header(self, stage: Stage, model: nn.Module, figures: dict[str, Any]) -> checkpoint.Header:
        """What the checkpoint of `stage` says."""
        return checkpoint.header_of(
            model,
            classes=self.loaders.card.classes,
            mean=self.loaders.mean,
            std=self.loaders.std,
            size=self.recipe.data.size,
            data=self.loaders.card.title,
            recipe={"name": self.recipe.name, "seed": self.recipe.seed, "stage": stage.name},
            figures=figures,
        )


def scored(
    model: nn.Module, example: torch.Tensor, f1: float | None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """{"macs", "macs_dispatched", "score"}. The score is None without `f1`, or when the audit refuses the net.

    `say` takes the audit's reasons, and a warning when `f1` is near the cliff.
    """
    cost = {"macs": macs(model, example), "macs_dispatched": macs_dispatched(model, example)}
    if f1 is None:
        return cost | {"score": None}
    verdict, scorer = audit(model, example), Scorer()
    if not verdict.ok:
        say(f"no score, because the audit does not trust the count of MACs; {verdict}")
        return cost | {"score": None}
    if warning := scorer.warning(f1):
        say(f"warning: {warning}")
    return cost | {"score": scorer(cost["macs"], f1)}


def _write_plan(folder: Path, plan: Plan) -> None:
    for name, text in (("plan.json", json.dumps(plan.to_fields(), indent=1)), ("plan.txt", f"{plan}\n")):
        with written_whole(folder / name) as path:
            path.write_text(text)
