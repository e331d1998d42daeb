"""Nets for microcontrollers, taught by a large net of published origin.

    python -m solution run waste_teacher_efficientnet --data ../shared/data/recycle9.tar --out runs/teacher \\
        --weights ../shared/data/weights/tf_efficientnet_lite0.safetensors
    python -m solution run waste_micro_small --data ../shared/data/recycle9.tar --out runs/micro
    python -m solution export runs/micro/after.safetensors --format micro --data ../shared/data/recycle9.tar \\
        --flash "128 KiB" --ram "64 KiB"

`waste_micro_small`, for 64 KiB of memory and 128 KiB of flash, is the net of `waste_distilled` under this teacher.
Expected on recycle9's val split, seed 0: macro F1 0.7902, in int8 0.7914, with 63,872 bytes of flash and 34,064 of
memory. Time: 33 minutes on one free core, besides 17 for the teacher's logits.

`waste_micro`, for 256 KiB of memory and 512 KiB of flash, is the teacher itself, cut to the chip and taught by what it
was. First blocks that repeat leave the last stages, which hold most weights; then channels go, few of the first stages
and most of the last. Logits of 16 views are the teacher's for pictures of its own side, so students of all sides share
them. Expected on recycle9's val split, seed 0: macro F1 0.8594 (0.4328 before training), in int8 0.8532, with 405,680
bytes of flash and 138,208 of memory; 24 minutes while other work held the cores (load 5 to 9), besides the teacher's
logits. The cut was chosen by memory, flash and MACs; that it learns was seen on dev, 0.8151 after four epochs on nine
tenths of the pictures. With --set distilled.epochs=30 it is 0.8723, in int8 0.8721. Larger pictures were not tried.

    python -m solution run waste_micro --data ../shared/data/recycle9.tar --out runs/micro

`waste_micro_peer` teaches a small net of a library alike, from fresh weights: MobileNetV1 x0.25 at 96 px, or another by
`--set model.name=timm:mobilenetv3_small_075`, `--set model.name=timm:mobilenetv2_035`. Twelve epochs are few for nets
that know nothing: 0.3303, 0.5652 and 0.4355, one run each; MobileNetV1 has 0.4684 after 30.

Another teacher: --set distilled.teachers=FILE, and for `waste_micro` also --set start.path=FILE.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from solution.compress.channels.step import PruneChannels
from solution.compress.fold_norms import FoldNorms
from solution.compress.prune_layers import PruneLayers
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.models.classifiers import Classifier
from solution.recipes.waste import distilled
from solution.recipes.waste.report import report
from solution.train.distillation import Distill
from solution.train.pretraining import Start

TEACHER = "runs/teacher"
TAUGHT = Distill(
    epochs=12,
    lr=2e-3,
    optimizer="adamw",
    weight_decay=0.05,
    warmup_epochs=1.0,
    first_size=48,
    ema_decay=0.998,
    keep="last",
    teachers=(TEACHER,),
    bf16_answers=True,
)


def recipe() -> Recipe:
    """256 KiB of memory, 512 KiB of flash: start -> pruned -> distilled -> folded."""
    limits = {"conv_stem": 0.0, "blocks.0*": 0.0, "blocks.[123]*": 0.3, "blocks.4*": 0.45}
    return Recipe(
        name="waste_micro",
        data=_data(size=64),
        model=Classifier(name="timm:tf_efficientnet_lite0"),
        stages=(
            Stage(name="start", step=Start(path=TEACHER)),
            Stage(name="shallow", step=PruneLayers(units=(2, 2, 2, 1, 1, 1), ranking="last")),
            Stage(name="pruned", step=PruneChannels(params="365K", limits=limits, reconstruct=True)),
            Stage(name="distilled", step=TAUGHT),
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


def peer() -> Recipe:
    """A small net of a library as it comes, taught as `waste_micro` is: distilled -> folded."""
    return Recipe(
        name="waste_micro_peer",
        data=_data(size=96),
        model=Classifier(name="pytorchcv:mobilenet_wd4"),
        stages=(Stage(name="distilled", step=TAUGHT), Stage(name="after", step=FoldNorms())),
        before="distilled",
        after="after",
        score=True,
        report=report,
    )


def _data(size: int) -> Data:
    half = (0.5, 0.5, 0.5)
    return dataclasses.replace(distilled.recipe().data, size=size, mean=half, std=half)
