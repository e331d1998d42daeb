"""Large nets that learn the photos, as teachers of small ones.

    python -m solution run waste_teacher_efficientnet --data ../shared/data/recycle9.tar --out runs/teacher \\
        --weights ../shared/data/weights/tf_efficientnet_lite0.safetensors

EfficientNet-Lite0 (Tan and Le, 2019, arXiv:1905.11946) starts from weights that were published for ImageNet: first a
new classifier is fitted on them, then all of the net, gently. Norms keep the published statistics: under those of small
batches of photos the features are others (their mean cosine is 0.53). Its answers take half the time in bf16
(`bf16_answers` of `Distill`).

Expected on recycle9's val split, seed 0: macro F1 0.9438, accuracy 0.9452; the classifier alone 0.8578. That run was
planned for 10 epochs and ended after 8, with a rate that fell faster from the seventh on. Time: about 35 minutes of one
core.

    python -m solution run waste_teacher --data ../shared/data/recycle9.tar --out runs/teacher \\
        --set pretrain.path=../shared/data/tiny100.tar.gz

ResNet-18 at 64 px does without published weights: it learns another set of pictures first. Expected on recycle9's val
split, seed 0: macro F1 0.8075, accuracy 0.8175. Time: 50 minutes on one core.
"""

from __future__ import annotations

from dataclasses import replace

from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.losses.classification import Loss
from solution.models.classifiers import Classifier
from solution.recipes.waste.report import report
from solution.train.pretraining import Pretrain
from solution.train.step import Train

# Smoothed labels would wipe out the differences between the wrong classes in a teacher's logits (arXiv:1906.02629).
_LOSS = Loss(smoothing=0.0)


def recipe() -> Recipe:
    """Another set -> the task."""
    return Recipe(
        name="waste_teacher",
        data=Data(size=64, cache_size=100, augment=Augment(crop_scale=(0.25, 1.0), quarter_turn=0.1, color=0.3)),
        model=Classifier(name="timm:resnet18"),
        stages=(
            Stage(name="pretrain", step=Pretrain(epochs=12, lr=0.1, weight_decay=5e-4, precision="bf16")),
            Stage(
                name="teacher",
                step=Train(epochs=45, lr=0.05, weight_decay=5e-4, loss=_LOSS, ema_decay=0.998, precision="bf16"),
            ),
        ),
        before="pretrain",
        after="teacher",
        score=True,
        report=report,
    )


def efficientnet() -> Recipe:
    """Published weights -> a new classifier on them -> all of them, at gentle rates, averaged."""
    augment = Augment(crop_scale=(0.35, 1.0), quarter_turn=0.1, color=0.3, erase=0.1)
    half = (0.5, 0.5, 0.5)
    gentle = Train(
        optimizer="adamw", weight_decay=0.05, warmup_epochs=0.5, frozen_norms=True, loss=_LOSS, precision="bf16"
    )
    return Recipe(
        name="waste_teacher_efficientnet",
        data=Data(size=160, cache_size=160, mean=half, std=half, batch_size=32, augment=augment),
        model=Classifier(name="timm:tf_efficientnet_lite0"),
        stages=(
            Stage(
                name="probe",
                step=replace(gentle, epochs=1, lr=1e-3, fitted="classifier", ema_decay=0.99),
            ),
            Stage(
                name="teacher",
                step=replace(gentle, epochs=8, lr=2e-4, first_size=128, ema_decay=0.998),
            ),
        ),
        before="probe",
        after="teacher",
        score=True,
        report=report,
    )
