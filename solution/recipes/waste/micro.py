"""Nets for microcontrollers, taught by a large net of published origin.

    python -m solution run waste_teacher_efficientnet --data ../shared/data/recycle9.tar --out runs/teacher \\
        --weights ../shared/data/weights/tf_efficientnet_lite0.safetensors
    python -m solution run waste_micro_small --data ../shared/data/recycle9.tar --out runs/micro
    python -m solution export runs/micro/after.safetensors --format micro --data ../shared/data/recycle9.tar \\
        --flash "128 KiB" --ram "64 KiB"

`waste_micro_small`, for 64 KiB of memory and 128 KiB of flash, is the net of `waste_distilled` under this teacher.
Expected on recycle9's val split, seed 0: macro F1 0.7902, in int8 0.7823, with 63,872 bytes of flash and 34,064 of
memory. Time: 33 minutes on one free core, besides 17 for the teacher's logits.

`waste_micro`, for 256 KiB of memory and 512 KiB of flash, is the teacher itself, cut to the chip and taught by what it
was. Its widths were chosen by memory and flash alone, before any training; the first blocks keep more of their channels
than the rest, for they hold few weights. Logits of 16 views are the teacher's for pictures of its own side, so students
of all sides share them. Expected with `--set distilled.epochs=12`, seed 0: macro F1 0.7150 (0.3780 before training), in
int8 0.7256, with 439,680 bytes of flash and 138,400 of memory, in five minutes of processor time. That is short: the
loss still fell, and the small net is better. The default of 100 epochs, and 80 or 96 px, which fit too, were not tried.

Another teacher: --set distilled.teachers=FILE, and for `waste_micro` also --set start.path=FILE.
"""

from __future__ import annotations

import dataclasses
from typing import Any

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
    """256 KiB of memory, 512 KiB of flash: start -> pruned -> distilled -> folded."""
    half = (0.5, 0.5, 0.5)
    limits = {"conv_stem": 0.45, "blocks.[01]*": 0.45, "blocks.2*": 0.55}
    step = Distill(
        epochs=100,
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
        name="waste_micro",
        data=dataclasses.replace(distilled.recipe().data, size=64, mean=half, std=half),
        model=Classifier(name="timm:tf_efficientnet_lite0"),
        stages=(
            Stage(name="start", step=Start(path=TEACHER)),
            Stage(name="pruned", step=PruneChannels(params="380K", limits=limits, reconstruct=True)),
            Stage(name="distilled", step=step),
            Stage(name="after", step=FoldNorms()),
        ),
        before="start",
        after="after",
        score=True,
        report=report,
    )


def small() -> Recipe:
    """64 KiB of memory, 128 KiB of flash: distilled -> folded."""
    whole = distilled.recipe()
    step: Any = whole.stages[0].step
    taught = dataclasses.replace(step, teachers=(TEACHER,), bf16_answers=True)
    stages = (dataclasses.replace(whole.stages[0], step=taught), *whole.stages[1:])
    return dataclasses.replace(whole, name="waste_micro_small", stages=stages)
