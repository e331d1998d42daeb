"""The competition's best net in four bits a weight: its grids learn from the photos, then it is packed.

    python -m solution run waste_four_bits --data ../shared/data/recycle9.tar

Goes on from the After that is committed, so no run stands before it. Labels alone teach it: with answers of its own
float form, or of the ResNet-18 that taught that one, it came out no better, and more epochs or stronger views made it
forget. The 3 x 3 layers keep eight bits, all other parameters take 16. Another start: --set start.path=FILE.
"""

from __future__ import annotations

import dataclasses

from solution.compress.quantize import Freeze, Quantize
from solution.contracts import Recipe, Stage
from solution.data.augment import Augment
from solution.recipes import waste_distilled
from solution.train.start import Start
from solution.train.step import Train

SPATIAL = ("*dw_conv*", "features.init_block.conv")
"""The 3 x 3 layers, first and depthwise: they bear four bits worst and hold few weights."""
POINTWISE = ("*compress*", "*expand*", "output*")
"""All others, 1 x 1."""


def recipe() -> Recipe:
    """Start -> eight -> four -> trained -> after."""
    whole = waste_distilled.recipe()
    augment = Augment(crop_scale=(0.7, 1.0), quarter_turn=0.0, colour=0.0)
    return Recipe(
        name="waste_four_bits",
        data=dataclasses.replace(whole.data, views=0, augment=augment),
        model=whole.model,
        stages=(
            Stage(name="start", step=Start(path="pretrained/recycle9/after.safetensors")),
            Stage(name="eight", step=Quantize(scheme="int8", learn=True, protect=POINTWISE)),
            Stage(name="four", step=Quantize(scheme="int4", learn=True, protect=SPATIAL)),
            Stage(name="trained", step=Train(epochs=30, lr=0.02, warmup_epochs=0.2, keep="last")),
            Stage(name="after", step=Freeze(fold_norms=True, others="bfloat16")),
        ),
        before="start",
        after="after",
        thorough=True,
    )
