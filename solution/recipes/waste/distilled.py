"""The competition's best score here: a small ShuffleNet, distilled from a large net.

    python -m solution run waste_teacher --data ../shared/data/recycle9.tar \\
        --set pretrain.path=../shared/data/tiny100.tar.gz --out runs/teacher
    python -m solution run waste_distilled --data ../shared/data/recycle9.tar --out runs/distilled

At 48 px a photo costs a third of what it costs at 80, which pays for fewer and wider units; the teacher's logits,
computed once for every view, make up for what the photos lose. Side, units and width were chosen on the dev split by
trainings of 40 epochs; the run itself learns from the dev split too and keeps its last epoch. Norms are folded at the
end: After costs less and its outputs stay. Another teacher: --set distilled.teachers=FILE.

Expected on recycle9's val split, mean and standard deviation of seeds 0, 1, 2 with one teacher: macro F1
0.7857 ± 0.0020, 667,404 MACs, score 0.1089 ± 0.0024. Time besides the teacher's: 51 to 57 minutes, three seeds side by
side on two cores.
"""

from __future__ import annotations

from typing import Any

from solution.compress.fold_norms import FoldNorms
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.models.shufflenet import ShuffleNet
from solution.recipes.waste.report import report
from solution.train.distillation import Distill


def recipe() -> Recipe:
    """Distilled -> folded."""
    augment = Augment(crop_scale=(0.4, 1.0), quarter_turn=0.1, color=0.2)
    return Recipe(
        name="waste_distilled",
        data=Data(size=48, cache_size=100, views=16, use_all_train=True, augment=augment),
        model=ShuffleNet(units=(1, 2, 1), width=0.5),
        stages=(
            Stage(
                name="distilled",
                step=Distill(epochs=600, lr=0.2, ema_decay=0.998, keep="last", teachers=("runs/teacher",)),
            ),
            Stage(name="after", step=FoldNorms()),
        ),
        before="distilled",
        after="after",
        score=True,
        report=report,
        exports=("onnxruntime", "openvino", "openvino int8"),
    )


def space() -> dict[str, Any]:
    """What a search varies, with --set data.use_all_train=False so that something is left to choose on."""
    return {
        "model.units": [(1, 1, 1), (1, 2, 1), (1, 3, 1), (1, 3, 2), (2, 3, 1), (2, 4, 2), (2, 5, 2), (4, 8, 4)],
        "model.width": (0.2, 0.6),
        "model.groups": [1, 2, 3, 4, 8],
        "data.size": [40, 48, 56, 64, 80],
        "data.augment.crop_scale": [(0.4, 1.0), (0.65, 1.0)],
        "distilled.lr": (0.05, 0.5, "log"),
        "distilled.share": (0.5, 1.0),
        "distilled.distill_loss.method": ["kd", "dkd", "standardized"],
        "distilled.distill_loss.temperature": (1.0, 8.0),
    }
