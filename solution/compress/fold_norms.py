"""Batch norms go into the convolutions before them: the same answers, fewer parameters, and less to do.

    from solution import FoldNorms
    folded = FoldNorms()(model, StepContext(example=x))

After the last training, for what has no norms left trains badly; before `Cluster` and `Quantize`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn
from torch.nn.utils import parametrize

from solution.compress.listing import columns, left_alone, savings
from solution.compress.prune_weights import KeepZeros
from solution.compress.quantization.folding import fold_norms, module_at
from solution.compress.quantization.graph import Wiring
from solution.contracts import InputError, Plan, StepContext, StructuralStep
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

    Clustered and quantized weights keep their norms, for a factor of each channel would undo what they share;
    `Quantize` and `Convert` fold too, and take the factors into their scales.
    """

    def decide(self, model: nn.Module, context: StepContext) -> FoldPlan:
        """`InputError` when no norm can be folded, or when the forward cannot be recorded."""
        pairs = Wiring(model).norms()
        left = {
            norm: f"{layer} is clustered or quantized"
            for norm, layer in pairs.items()
            if not _is_free(module_at(model, layer))
        }
        folded = {norm: layer for norm, layer in pairs.items() if norm not in left}
        if not folded:
            why = next(iter(left.values()), "no batch norm is the only one to see a convolution's output")
            raise InputError(f"nothing to fold: {why}; leave fold_norms out")
        net, example = FoldPlan(folded=folded, saves={}).apply(model), context.example
        saves = {"macs": (macs(model, example), macs(net, example)), "params": (params(model), params(net))}
        return FoldPlan(folded=folded, saves=saves, left=left)


def _is_free(layer: nn.Module) -> bool:
    """Whether each weight of `layer` may take a value of its own; zeros of a sparse one stay zeros under a factor."""
    if parametrize.is_parametrized(layer, "weight"):
        return all(isinstance(form, KeepZeros) for form in layer.parametrizations.weight)
    return isinstance(layer._parameters.get("weight"), nn.Parameter)
