"""The competition's main job: ShuffleNet v1 4,8,4 -> 2,5,2 on photos of waste.

    python -m solution run waste_shufflenet --data ../shared/data/recycle9.tar --out runs/recycle9

Before and After come from one net of 30 epochs: Before trains 90 more, After loses layers and trains 90 more, so that
both have seen the same epochs with the same augmentation. The augmentation is mild: nets this small underfit.

Expected on recycle9's val split, mean and standard deviation of seeds 0, 1: Before F1 0.7422 ± 0.0037, score
0.2346 ± 0.0044; After F1 0.7364 ± 0.0058, score 0.1978 ± 0.0069. Time: about 45 minutes on one free core.
"""

from __future__ import annotations

from solution.compress.prune_layers import PruneLayers
from solution.contracts import Recipe, Stage
from solution.data.augment import Augment
from solution.dataloader import Data
from solution.models.shufflenet import ShuffleNet
from solution.train.step import Train


def recipe() -> Recipe:
    """Base -> Before; base -> pruned -> After."""
    return Recipe(
        name="waste_shufflenet",
        data=Data(augment=Augment(crop_scale=(0.4, 1.0), quarter_turn=0.0, colour=0.1)),
        model=ShuffleNet(units=(4, 8, 4)),
        stages=(
            Stage(name="train", step=Train(epochs=30, lr=0.2, ema_decay=0.998)),
            Stage(name="before", step=Train(epochs=90, lr=0.2, ema_decay=0.998)),
            Stage(name="prune_layers", step=PruneLayers(units=(2, 5, 2)), after="train"),
            Stage(name="after", step=Train(epochs=90, lr=0.2, ema_decay=0.998)),
        ),
        before="before",
        after="after",
    )
