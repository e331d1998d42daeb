"""Batch norms go into the convolutions before them: the same outputs, fewer parameters, fewer operations.

    import solution as fw
    folded = fw.FoldNorms()(model, x)

Use it after the last training, because what has no norms left trains badly, and before `Cluster`. `Quantize` and
`Convert` fold too, and take the factors into their scales. After Jacob et al., 2018 (arXiv:1712.05877).

`Wiring` records with torch.fx which layer feeds which; cross-layer equalization reads it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from solution.compress.coupling.equality import agreed
from solution.compress.coupling.inputs import AnyNetStep
from solution.compress.layers import (
    TRANSPOSED,
    WEIGHTED,
    along,
    channel_axis,
    convolutions,
    left_alone,
    module_at,
    of_timm,
    savings,
    shared_weights,
)
from solution.compress.parametrized import MASKS, computed, note_computed, plain
from solution.contracts import InputError, Plan, StepContext, copied
from solution.evaluate.cost import counted_class, macs, params
from solution.text import columns

_SHARED = frozenset({"Codebook", "Codes", "Half", "LearnedStep", "Signs"})
"""Forms by which weights share values or a grid: a factor of each channel would undo that."""


@dataclass(frozen=True, kw_only=True)
class FoldPlan(Plan):
    """Which norm goes where.

    folded  {norm: the layer it is folded into}
    saves   {"macs": (before, after), "params": (before, after)}
    left    {norm: why it stays}
    verified
            error of the folded net against the one before; None when nobody looked
    """

    kind: ClassVar[str] = "fold_norms"
    folded: dict[str, str]
    saves: dict[str, tuple[int, int]]
    left: dict[str, str] = field(default_factory=dict)
    verified: float | None = None

    def cut(self, model: nn.Module) -> nn.Module:
        """Fold in place. `InputError` when the plan was made for another net."""
        fold_norms(model, self.folded)
        return model

    def __str__(self) -> str:
        rows = [("norm", "goes into"), *self.folded.items()]
        proof = [] if self.verified is None else [f"verified: outputs agree to {self.verified:.0e}"]
        return "\n".join([*columns(rows), *left_alone(self.left), *savings(self.saves), *proof])


@dataclass(frozen=True, kw_only=True)
class FoldNorms(AnyNetStep):
    """Fold every batch norm that is the only one to see a convolution's output.

    Outputs stay the same but for rounding. The competition counts torch's own norms twice per element and a bias once;
    norms that it does not know, such as timm's with an activation inside, cost nothing before and a bias after.

    Clustered and quantized weights keep their norms. A weight that is computed, by weight norm for example, becomes a
    plain one first. A layer that computes its weight inside its forward keeps its norm, and the plan notes it.

    verify  run the folded net and the one before on the example: they must be equal
    """

    verify: bool = True

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The folded net, which nobody verifies."""
        return replace(self, verify=False).run(model, context)

    def decide(self, model: nn.Module, context: StepContext) -> FoldPlan:
        """`InputError` when no norm can be folded, or when the forward cannot be recorded."""
        wiring = Wiring(model)
        folded, left = wiring.norms(), wiring.stuck()
        for norm, layer in tuple(folded.items()):
            module = module_at(model, layer)
            if not _SHARED.isdisjoint(computed(module).get("weight", ())):
                left[norm] = f"{folded.pop(norm)} is clustered or quantized"
        if not folded:
            why = next(iter(left.values()), "no batch norm is the only one to see a convolution's output")
            raise InputError(f"nothing to fold: {why}; leave fold_norms out")
        note_computed(model, (*folded, *folded.values()), context.log, keeps=MASKS)
        net, example = FoldPlan(folded=folded, saves={}).apply(model), context.example
        saves = {"macs": (macs(model, example), macs(net, example)), "params": (params(model), params(net))}
        plan = FoldPlan(folded=folded, saves=saves, left=left)
        return replace(plan, verified=agreed(model, plan.apply, example)) if self.verify else plan


def fold_norms(model: nn.Module, pairs: Mapping[str, str]) -> dict[str, Tensor]:
    """Fold each norm of `pairs` (norm -> layer), in place. Returns {layer: factor (C,)}.

    What the norm has besides, an activation in timm's nets, takes its place, or else an identity.
    """
    factors = {}
    for norm_path, layer_path in pairs.items():
        layer, norm = module_at(model, layer_path), module_at(model, norm_path)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            raise InputError(f"this plan was made for another net: {norm_path} is no batch norm")
        plain(layer)
        plain(norm)
        factors[layer_path] = _fold(layer, norm)
        parent, _, name = norm_path.rpartition(".")
        rest = list(norm.children())
        setattr(model.get_submodule(parent), name, nn.Sequential(*rest) if rest else nn.Identity())
    return factors


def _fold(layer: Any, norm: Any) -> Tensor:
    """In eval mode, norm(layer(x)) = (weight * factor) x + (bias - mean) * factor + shift. Returns the factor (C,)."""
    with torch.no_grad():
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        shift = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
        shift = shift * factor if norm.bias is None else shift * factor + norm.bias
        layer.weight.mul_(along(factor, channel_axis(layer), layer.weight.dim()))
    layer.bias = nn.Parameter(shift.detach().to(layer.weight.dtype).clone())
    return factor.detach()


class Wiring:
    """The forward of a net, recorded by torch.fx. `InputError` when it cannot be recorded."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.shared = shared_weights(model)
        try:
            # On a copy: a forward may keep what it saw, and here it sees no numbers.
            self.nodes = list(_Tracer().trace(copied(model).eval()).nodes)
        except Exception as error:
            raise InputError(
                f"the forward of {type(model).__name__} cannot be recorded ({error}), so no norm can be folded: "
                "leave out the step fold_norms, or the settings fold_norms and cross_layer_equalize"
            ) from error
        self.calls = Counter(node.target for node in self.nodes if node.op == "call_module")

    def norms(self) -> dict[str, str]:
        """{batch norm: the convolution whose output it alone sees}."""
        return {str(norm.target): str(before.target) for norm, before in self._norms() if self._convolves(before)}

    def stuck(self) -> dict[str, str]:
        """{batch norm that sees the output of a layer of another class than plain ones: that it does}."""
        found = {}
        for norm, before in self._norms():
            module = self.modules.get(before.target) if before.op == "call_module" else None
            if isinstance(module, WEIGHTED) and counted_class(module) not in (*convolutions(), *TRANSPOSED, nn.Linear):
                found[str(norm.target)] = f"{before.target} is a {type(module).__name__}, which may compute its weight"
        return found

    def calls_only(self, node: object, kinds: tuple[type[nn.Module], ...]) -> bool:
        """A call, the only one, of a module of one of these very classes that shares its weight with none."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or self.calls[node.target] != 1:
            return False
        return node.target not in self.shared and counted_class(self.modules[node.target]) in kinds

    def _norms(self) -> list[tuple[fx.Node, fx.Node]]:
        """Batch norms with running statistics, and what they alone see."""
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, *of_timm("BatchNormAct2d"))
        pairs = [(node, node.args[0]) for node in self.nodes if self.calls_only(node, kinds) and node.args]
        return [
            (norm, before)
            for norm, before in pairs
            if self.modules[norm.target].track_running_stats and isinstance(before, fx.Node) and len(before.users) == 1
        ]

    def _convolves(self, node: fx.Node) -> bool:
        """A convolution whose outputs lie along one axis of its weight."""
        if self.calls_only(node, TRANSPOSED):
            return self.modules[node.target].groups == 1
        return self.calls_only(node, convolutions())


class _Tracer(fx.Tracer):
    """Takes every kind of batch norm, and every layer that has a weight, as one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether `m` is not looked into."""
        leaf = isinstance(m, (nn.modules.batchnorm._BatchNorm, *WEIGHTED))
        return leaf or super().is_leaf_module(m, module_qualified_name)
