"""Nets for microcontrollers: a large net of published origin, cut to the chip, taught by what it was before.

    python -m solution run waste_teacher_efficientnet --data ../shared/data/recycle9.tar --out runs/teacher \\
        --weights ../shared/data/weights/tf_efficientnet_lite0.safetensors
    python -m solution run waste_micro --data ../shared/data/recycle9.tar --out runs/micro
    python -m solution export runs/micro/after.safetensors --format micro --data ../shared/data/recycle9.tar \\
        --flash "512 KiB" --ram "256 KiB"

`waste_micro_small` is the same for 128 KiB of flash and 64 KiB of memory. Sides and widths were chosen by the estimate
of `solution.evaluate.ram` alone, before any training. The first blocks keep more of their channels than the rest, where
memory allows: they hold few weights. Logits of 16 views are the teacher's for pictures of its own side, so students of
all sides share them. Another teacher: --set start.path=FILE --set distilled.teachers=FILE.
"""

from __future__ import annotations

import dataclasses

from solution.compress.channels.step import PruneChannels
from solution.compress.fold_norms import FoldNorms
from solution.contracts import Recipe, Stage
from solution.models.classifiers import Classifier
from solution.recipes.waste import distilled
from solution.recipes.waste.report import report
from solution.train.distillation import Distill
from solution.train.pretraining import Start

TEACHER = "runs/teacher"


def recipe() -> Recipe:
    """256 KiB of memory, 512 KiB of flash."""
    return _cut("waste_micro", "380K", {"conv_stem": 0.45, "blocks.[01]*": 0.45, "blocks.2*": 0.55}, epochs=12)


def small() -> Recipe:
    """64 KiB of memory, 128 KiB of flash."""
    return _cut("waste_micro_small", "85K", {}, epochs=10)


def _cut(name: str, params: str, limits: dict[str, float], epochs: int) -> Recipe:
    """Start -> pruned -> distilled -> folded."""
    half = (0.5, 0.5, 0.5)
    step = Distill(
        epochs=epochs,
        lr=2e-3,
        optimizer="adamw",
        weight_decay=0.05,
        warmup_epochs=1.0,
        first_size=32,
        ema_decay=0.998,
        keep="last",
        teachers=(TEACHER,),
        bf16_answers=True,
    )
    return Recipe(
        name=name,
        data=dataclasses.replace(distilled.recipe().data, size=64, mean=half, std=half),
        model=Classifier(name="timm:tf_efficientnet_lite0"),
        stages=(
            Stage(name="start", step=Start(path=TEACHER)),
            Stage(name="pruned", step=PruneChannels(params=params, limits=limits, reconstruct=True)),
            Stage(name="distilled", step=step),
            Stage(name="after", step=FoldNorms()),
        ),
        before="start",
        after="after",
        score=True,
        report=report,
    )
