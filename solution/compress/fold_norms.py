"""Batch norms go into the convolutions before them: the same answers, fewer parameters, and less to do.

    from solution.compress import FoldNorms
    folded = FoldNorms()(model, Given(example=x))

Last in a chain: what has no norms left trains badly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from solution.compress.listing import columns, savings
from solution.compress.quantization.folding import fold_norms
from solution.compress.quantization.graph import Wiring
from solution.contracts import Given, InputError, Plan, StructuralStep
from solution.evaluate.cost import macs, params


@dataclass(frozen=True, kw_only=True)
class FoldPlan(Plan):
    """Which norm goes where.

    folded  {norm: the layer it is folded into}
    saves   {"macs": (before, after), "params": (before, after)}
    """

    kind: ClassVar[str] = "fold_norms"
    folded: dict[str, str]
    saves: dict[str, tuple[int, int]]

    def cut(self, model: nn.Module) -> nn.Module:
        """Fold in place. `InputError` when the plan was made for another net."""
        fold_norms(model, self.folded)
        return model

    def __str__(self) -> str:
        return "\n".join([*columns([("norm", "goes into"), *self.folded.items()]), *savings(self.saves)])


@dataclass(frozen=True, kw_only=True)
class FoldNorms(StructuralStep):
    """Fold every batch norm that is the only one to see a convolution's output (Jacob et al., 2018, arXiv:1712.05877).

    Answers stay the same but for rounding. The competition counts torch's own norms twice per element and a bias once;
    norms that it does not know, such as timm's with an activation inside, cost nothing before and a bias after.
    """

    currency: ClassVar[str] = "params"

    def plan(self, model: nn.Module, given: Given) -> FoldPlan:
        """`InputError` when no norm can be folded, or when the forward cannot be recorded."""
        folded = Wiring(model).norms()
        if not folded:
            raise InputError("nothing to fold: no batch norm is the only one to see a convolution's output")
        net, example = FoldPlan(folded=folded, saves={}).apply(model), given.example
        saves = {"macs": (macs(model, example), macs(net, example)), "params": (params(model), params(net))}
        return FoldPlan(folded=folded, saves=saves)
