"""Trial 45 of a search over waste_distilled: score 0.1760 on the dev split.

    python -m solution run runs/search_cropped/best.py --data PATH --seed 0 --out runs/best

Macro F1 0.7253 on the dev split, which the search looked at: val will say less. 597,830 MACs.
48 trials, seed 0, commit 6a1434bad7, AMD EPYC, 2 cores, 1 thread(s).
"""

from __future__ import annotations

from solution.compress.fold_norms import FoldNorms
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.losses.distillation import DistillLoss
from solution.models.shufflenet import ShuffleNet
from solution.train.distillation import Distill


def recipe() -> Recipe:
    """The settings that were found."""
    return Recipe(
        name="waste_distilled_best",
        data=Data(
            path="../shared/data/recycle9.tar",
            size=56,
            cache_size=100,
            augment=Augment(crop_scale=(0.65, 1.0), quarter_turn=0.1, color=0.2),
            views=16,
        ),
        model=ShuffleNet(units=(2, 3, 1), width=0.3189, groups=1),
        stages=(
            Stage(
                name="distilled",
                step=Distill(
                    epochs=40,
                    lr=0.4519,
                    ema_decay=0.998,
                    teachers=("runs/teacher",),
                    distill_loss=DistillLoss(method="standardized", temperature=4.971),
                    share=0.8504,
                ),
            ),
            Stage(name="after", step=FoldNorms()),
        ),
        before="distilled",
        after="after",
        exports=("onnxruntime", "openvino", "openvino int8"),
    )
