"""The competition's best net in four bits a weight: its grids learn from the same teacher, then it is packed.

    python -m solution run waste_four_bits --data ../shared/data/recycle9.tar

Goes on from `runs/distilled/before.safetensors`, which `waste_distilled` leaves with its norms not folded yet: a net
whose norms are folded trains badly. Norms go into the scales at the end, all other parameters to bfloat16. Another
start, another teacher: --set start.path=FILE --set taught.teachers=FILE. Layers with few inputs keep eight bits.
"""

from __future__ import annotations

from solution.compress.quantize import Freeze, Quantize
from solution.contracts import Recipe, Stage
from solution.recipes import waste_distilled
from solution.train.distill import Distill
from solution.train.start import Start

FEW_INPUTS = ("*dw_conv*", "features.init_block.conv")
"""Layers whose sums have 9 or 27 terms: the errors of four bits do not average out there, and they hold few weights."""
MANY_INPUTS = ("*compress*", "*expand*", "output*")
"""All others."""


def recipe() -> Recipe:
    """Start -> eight -> four -> taught -> packed."""
    whole = waste_distilled.recipe()
    step = Distill(epochs=100, lr=0.02, keep="last", teachers=("runs/teacher",))
    return Recipe(
        name="waste_four_bits",
        data=whole.data,
        model=whole.model,
        stages=(
            Stage(name="start", step=Start(path="runs/distilled/before.safetensors")),
            Stage(name="eight", step=Quantize(scheme="int8", learn=True, protect=MANY_INPUTS)),
            Stage(name="four", step=Quantize(scheme="int4", learn=True, protect=FEW_INPUTS)),
            Stage(name="taught", step=step),
            Stage(name="after", step=Freeze(fold_norms=True, others="bfloat16")),
        ),
        before="start",
        after="after",
        thorough=True,
    )
