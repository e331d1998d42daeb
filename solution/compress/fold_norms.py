"""Batch norms go into the convolutions before them: the same answers, fewer parameters, and less to do.

    from solution.compress import FoldNorms
    folded = FoldNorms()(model, Given(example=x))

Last in a chain: what has no norms left trains badly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from solution.compress.listing import columns, left_alone, savings
from solution.compress.quantization.folding import fold_norms, module_at
from solution.compress.quantization.graph import Wiring
from solution.contracts import Given, InputError, Plan, StructuralStep
from solution.evaluate.cost import macs, params


@dataclass(frozen=True, kw_only=True)
class FoldPlan(Plan):
    """Which norm goes where.

    folded  {norm: the layer it is folded into}
    saves   {"macs": (before, after), "params": (before, after)}
    left    {norm: why it stays}
    """

    kind: ClassVar[str] = "fold_norms"
    folded: dict[str, str]
    saves: dict[str, tuple[int, int]]
    left: dict[str, str] = field(default_factory=dict)

    def cut(self, model: nn.Module) -> nn.Module:
        """Fold in place. `InputError` when the plan was made for another net."""
        fold_norms(model, self.folded)
        return model

    def __str__(self) -> str:
        rows = [("norm", "goes into"), *self.folded.items()]
        return "\n".join([*columns(rows), *left_alone(self.left), *savings(self.saves)])


@dataclass(frozen=True, kw_only=True)
class FoldNorms(StructuralStep):
    """Fold every batch norm that is the only one to see a convolution's output (Jacob et al., 2018, arXiv:1712.05877).

    Answers stay the same but for rounding. The competition counts torch's own norms twice per element and a bias once;
    norms that it does not know, such as timm's with an activation inside, cost nothing before and a bias after.

    Weights that are sparse, clustered or quantized keep their norms: a factor for each channel would undo what they
    share. Fold first, or let `Quantize` and `Freeze` fold, which take the factors into their scales.
    """

    currency: ClassVar[str] = "params"

    def plan(self, model: nn.Module, given: Given) -> FoldPlan:
        """`InputError` when no norm can be folded, or when the forward cannot be recorded."""
        pairs = Wiring(model).norms()
        left = {
            norm: f"{layer} is sparse, clustered or quantized"
            for norm, layer in pairs.items()
            if not isinstance(module_at(model, layer)._parameters.get("weight"), nn.Parameter)
        }
        folded = {norm: layer for norm, layer in pairs.items() if norm not in left}
        if not folded:
            why = "; ".join(left_alone(left)) or "no batch norm is the only one to see a convolution's output"
            raise InputError(f"nothing to fold: {why}")
        net, example = FoldPlan(folded=folded, saves={}).apply(model), given.example
        saves = {"macs": (macs(model, example), macs(net, example)), "params": (params(model), params(net))}
        return FoldPlan(folded=folded, saves=saves, left=left)
