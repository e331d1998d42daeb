"""What nets are for: how a task is judged, which figure sums it up, what its outputs look like.

A net's settings name their task (`solution.contracts.task_of`); everything that differs from task to task stands in
its `Task` here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from solution import contracts
from solution.contracts import Batches, InputError
from solution.evaluate.audit import audit
from solution.evaluate.classify import Predict, classify, predictor
from solution.evaluate.cost import macs, macs_dispatched, params, sparsity
from solution.evaluate.detect import detect
from solution.evaluate.ram import memory
from solution.evaluate.score import Scorer
from solution.evaluate.segment import segment

Quality = Mapping[str, float]
"""{figure: fraction of 1}."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of answer. A task of one's own is another value of this class.

    judge          a net's predictions and labeled batches -> its quality there
    figure, title  the figure of `judge` that sums it up, and what it is called
    answers        shape of a batch's outputs, in words; `rank` is its number of dimensions
    extra_outputs  outputs of a net besides those of its classes, along the second dimension
    judges_train   whether nets that learned nothing in a run are judged on train's pictures too
    most_lost      {precision of an exported file: most of `figure` that it may lose}
    at_chance      quality, and the pictures of each class -> whether a guess does as well
    next           commands after a run, with {out}, its folder, and {data}, the flag that names the data
    """

    name: str
    judge: Callable[[Predict, Batches], dict[str, float]]
    figure: str
    title: str
    answers: str
    rank: int
    extra_outputs: int = 0
    judges_train: bool = False
    most_lost: Mapping[str, float] = field(default_factory=dict)
    at_chance: Callable[[Quality, Mapping[str, int]], bool] = lambda quality, counts: False
    next: tuple[str, ...] = ("report {out}",)

    def num_outputs(self, num_classes: int) -> int:
        """Size of the outputs' second dimension."""
        return num_classes + self.extra_outputs


def _classes_at_chance(quality: Quality, counts: Mapping[str, int]) -> bool:
    """Whether accuracy and macro F1 are within two standard errors of always naming one class, or any at random."""
    total = sum(counts.values())
    if not total or not {"accuracy", "f1"} <= set(quality):
        return False
    most, even = max(counts.values()) / total, 1 / len(counts)
    constant = 2 * most / (1 + most) / len(counts)  # macro F1 of always naming the commonest class
    slack = 2 * math.sqrt(most * (1 - most) / total)
    return quality["accuracy"] <= most + slack and quality["f1"] <= max(even, constant) + slack


CLASSIFICATION = Task(
    name=contracts.CLASSIFICATION,
    judge=lambda predict, batches: classify(predict, batches).quality(),
    figure="f1",
    title="macro F1",
    answers="logits (B, classes)",
    rank=2,
    most_lost={"fp32": 0.001, "fp16": 0.003, "int8": 0.02},
    at_chance=_classes_at_chance,
    next=(
        "report {out}{data}",
        "predict {out}/after.safetensors PHOTO",
        "serve {out}/before.safetensors {out}/after.safetensors",
        "export {out}/after.safetensors --format onnx{data}",
    ),
)
DETECTION = Task(
    name=contracts.DETECTION,
    judge=lambda predict, batches: detect(predict, batches).quality(),
    figure="map",
    title="mAP50-95",
    answers="candidates (B, 4 + classes, N)",
    rank=3,
    extra_outputs=4,
    judges_train=True,
    most_lost={"fp32": 0.002, "fp16": 0.005, "int8": 0.05},
    at_chance=lambda quality, counts: quality.get("map", 1.0) < 0.001,
)
SEGMENTATION = Task(
    name=contracts.SEGMENTATION,
    judge=lambda predict, batches: segment(predict, batches).quality(),
    figure="miou",
    title="mIoU",
    answers="logits (B, classes, H, W)",
    rank=4,
    most_lost={"fp32": 0.001, "fp16": 0.003, "int8": 0.02},
    at_chance=lambda quality, counts: quality.get("miou", 1.0) < 0.02,
)
TASKS = {task.name: task for task in (CLASSIFICATION, DETECTION, SEGMENTATION)}


def task_named(name: str) -> Task:
    """The task that a file or a model's settings name."""
    if name not in TASKS:
        raise InputError(f"there is no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def judge(
    model: nn.Module,
    example: Tensor,
    batches: Mapping[str, Batches],
    *,
    task: Task = CLASSIFICATION,
    device: str = "cpu",
) -> dict[str, Any]:
    """The figures of a `Row` that are the model's own: macs, macs_dispatched, score, params, ram, sparsity, quality.

    batches  {what the names of their figures begin with: batches}: {"": val}; none judge no quality
    The score is left None: it is the competition's, and `score` computes it.
    """
    predict = predictor(model, device)
    quality = {
        f"{prefix}{name}": value
        for prefix, some in batches.items()
        for name, value in task.judge(predict, some).items()
    }
    return {
        "macs": macs(model, example),
        "macs_dispatched": macs_dispatched(model, example),
        "score": None,
        "params": params(model),
        "ram": memory(model, example).arena,
        "sparsity": sparsity(model),
        "quality": quality,
    }


def score(
    model: nn.Module, example: Tensor, figures: Mapping[str, Any], log: Callable[[str], None] = print
) -> float | None:
    """The competition's score of the `figures` of `judge`. None without macro F1, or when the audit does not trust the
    count of MACs; `log` takes its reasons, and a warning near the cliff."""
    if "f1" not in figures["quality"]:
        return None
    verdict, scorer, f1 = audit(model, example), Scorer(), figures["quality"]["f1"]
    if not verdict.ok:
        log(f"no score, because the audit does not trust the count of MACs; {verdict}")
        return None
    if warning := scorer.warning(f1):
        log(f"warning: {warning}")
    return scorer(figures["macs"], f1)
