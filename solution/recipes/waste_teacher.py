"""A teacher for small nets: ResNet-18 at 64 px that has learned another set of pictures first.

    python -m solution run waste_teacher --data ../shared/data/recycle9.tar \\
        --set pretrain.path=../shared/data/tiny100.tar.gz --out runs/teacher

It ships nowhere: `waste_distilled` asks it about every view of the training pictures, once.

Expected on recycle9's val split, seed 0: macro F1 0.8075, accuracy 0.8175. Time: 50 minutes on one core.
"""

from __future__ import annotations

from solution.contracts import Recipe, Stage
from solution.data.augment import Augment
from solution.dataloader import Data
from solution.losses.objective import Loss
from solution.models.classifiers import Classifier
from solution.train.pretrain import Pretrain
from solution.train.step import Train


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
                # Smoothed labels would wipe out what a teacher says about the wrong classes (arXiv:1906.02629).
                step=Train(
                    epochs=45,
                    lr=0.05,
                    weight_decay=5e-4,
                    loss=Loss(smoothing=0.0),
                    ema_decay=0.998,
                    precision="bf16",
                ),
            ),
        ),
        before="pretrain",
        after="teacher",
    )
