"""The competition's main job: ShuffleNet v1 4,8,4 -> 2,5,2 on photos of waste.

    python -m solution run waste_shufflenet --data ../shared/data/recycle9.tar --out runs/recycle9

Before and After come from one net of 30 epochs: Before trains 170 more, After loses layers and trains 170 more, so
that both have seen the same epochs with the same augmentation. The augmentation is mild: nets this small underfit.

Expected on recycle9's val split, mean and standard deviation of seeds 0, 1, 2: Before F1 0.7716 ± 0.0075, score
0.1995 ± 0.0090; After F1 0.7597 ± 0.0092, score 0.1699 ± 0.0110. Time: about an hour on one free core.
"""

from __future__ import annotations

from typing import Any

from solution.compress.prune_layers import PruneLayers
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.models.shufflenet import ShuffleNet
from solution.recipes.waste.report import report
from solution.train.step import Train


def recipe() -> Recipe:
    """Base -> Before; base -> pruned -> After."""
    return Recipe(
        name="waste_shufflenet",
        data=Data(augment=Augment(crop_scale=(0.4, 1.0), quarter_turn=0.1, color=0.2)),
        model=ShuffleNet(units=(4, 8, 4)),
        stages=(
            Stage(name="train", step=Train(epochs=30, lr=0.2, ema_decay=0.998)),
            Stage(name="before", step=Train(epochs=170, lr=0.2, ema_decay=0.998)),
            Stage(name="prune_layers", step=PruneLayers(units=(2, 5, 2)), after="train"),
            Stage(name="after", step=Train(epochs=170, lr=0.2, ema_decay=0.998)),
        ),
        before="before",
        after="after",
        score=True,
        report=report,
        exports=("onnxruntime", "openvino", "openvino int8"),
    )


def space() -> dict[str, Any]:
    """What a search varies (`solution.search.space`): a list offers choices, a tuple a range."""
    return {
        "prune_layers.units": [(1, 3, 1), (2, 3, 2), (2, 4, 2), (2, 5, 2), (2, 6, 2), (3, 5, 3), (3, 6, 3), (4, 7, 4)],
        "model.width": (0.15, 0.4),
        "model.groups": [1, 2, 3, 4, 8],
        "data.size": [48, 56, 64, 72, 80, 96],
        "data.augment.crop_scale": [(0.25, 1.0), (0.4, 1.0), (0.6, 1.0)],
        "data.augment.quarter_turn": (0.0, 0.3),
        "data.augment.color": (0.0, 0.4),
        "train.lr = after.lr": (0.05, 0.5, "log"),
        "train.weight_decay = after.weight_decay": (1e-5, 1e-3, "log"),
        "train.loss.smoothing = after.loss.smoothing": (0.0, 0.2),
        "train.loss.macro_f1 = after.loss.macro_f1": [0.0, 0.5, 1.0],
        "train.loss.class_weights = after.loss.class_weights": ["none", "effective"],
    }
