"""The competition's best job: everything a small ShuffleNet knows, it knows from a large teacher.

    python -m solution run waste_teacher --data ../shared/data/recycle9.tar \\
        --set pretrain.path=../shared/data/tiny100.tar.gz --out runs/teacher
    python -m solution run waste_distilled --data ../shared/data/recycle9.tar --out runs/distilled

As in `waste_shufflenet`, Before and After come from one net, and both have seen the same epochs. At 48 px a photo costs
a third of what it costs at 80; the teacher, asked once about every view, makes up for what the photos lose.
Another teacher: --set start.teachers=FILE --set before.teachers=FILE --set after.teachers=FILE.
"""

from __future__ import annotations

from solution.compress.prune_layers import PruneLayers
from solution.contracts import Recipe, Stage
from solution.data.augment import Augment
from solution.dataloader import Data
from solution.losses.distillation import Kd
from solution.models.shufflenet import ShuffleNet
from solution.train.distill import Distill

TEACHERS = ("runs/teacher",)


def recipe() -> Recipe:
    """Base -> pruned -> After; base -> Before."""
    return Recipe(
        name="waste_distilled",
        data=Data(
            size=48, cache_size=100, views=24, augment=Augment(crop_scale=(0.4, 1.0), quarter_turn=0.1, colour=0.2)
        ),
        model=ShuffleNet(units=(4, 8, 4)),
        stages=(
            Stage(name="start", step=_taught(60)),
            Stage(name="prune_layers", step=PruneLayers(units=(2, 5, 2))),
            Stage(name="after", step=_taught(240)),
            Stage(name="before", step=_taught(240), after="start"),
        ),
        before="before",
        after="after",
        exports=("onnxruntime", "openvino", "openvino int8"),
    )


def _taught(epochs: int) -> Distill:
    return Distill(epochs=epochs, lr=0.2, ema_decay=0.998, teachers=TEACHERS, kd=Kd())
