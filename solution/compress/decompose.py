"""Decomposition: a layer becomes two or three thin ones whose product is near to it.

    import solution as fw
    smaller = fw.Decompose(macs="60%")(model, x)

How a layer is split stands in `solution.compress.factors`, how ranks are found in `solution.compress.ranks`. The plan
holds methods and ranks; the factors are computed from the weights of the net that it is applied to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from solution.budget import Budget
from solution.compress.factors import factored
from solution.compress.layers import layer_for, layers_of, left_alone, savings, sound_weight
from solution.compress.parametrized import materialize, materialized, note_computed
from solution.compress.ranks import (
    Choice,
    Curve,
    Places,
    Rule,
    best,
    by_energy,
    by_number,
    by_vbmf,
    curve,
    front,
    whole_macs,
    within_budget,
)
from solution.contracts import Example, InputError, Plan, StepContext, StructuralStep, copied
from solution.evaluate.cost import macs, params
from solution.evaluate.counts import counted_class
from solution.graph.running import as_judged, call, one_for, run
from solution.text import columns

METHODS = ("auto", "svd", "spatial", "tucker")
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class DecomposePlan(Plan):
    """Which layers are split, how, and at what ranks.

    layers  path -> {"method", "ranks", "shape": of its weight, "macs": (before, after) without the bias,
            "lost": fraction of the squared weights}
    saves   {"macs": (before, after), "params": (before, after)}
    left    path -> why it stays in one piece
    """

    kind: ClassVar[str] = "decompose"
    layers: dict[str, dict[str, Any]]
    saves: dict[str, tuple[int, int]]
    left: dict[str, str]

    def cut(self, model: nn.Module) -> nn.Module:
        """Put the factors in the places of their layers."""
        modules = {path: layer_for(model, path, layer["shape"]) for path, layer in self.layers.items()}
        for path, module in modules.items():
            if reason := _misfit(materialize(module), self.layers[path]["method"]):
                raise InputError(f"this plan was made for another net: {path} cannot be split so, {reason}")
            factors = factored(module, self.layers[path]["method"], self.layers[path]["ranks"])
            if not path:
                return factors
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, factors)
        return model

    def __str__(self) -> str:
        rows = [("layer", "method", "ranks", "MACs", "change", "energy lost")]
        for path, layer in self.layers.items():
            before, after = layer["macs"]
            ranks = ", ".join(str(rank) for rank in layer["ranks"])
            numbers = (f"{before:,} -> {after:,}", f"{after / before - 1:+.1%}", f"{100 * layer['lost']:.2f} %")
            rows.append((path, layer["method"], ranks, *numbers))
        return "\n".join([*columns(rows), *left_alone(self.left), *savings(self.saves)])


@dataclass(frozen=True, kw_only=True)
class Decompose(StructuralStep):
    """Split layers into thin ones. Grouped convolutions, and layers that would not gain, are left and named.

    method   "svd": 1x1 convolutions and linear layers; "spatial" or "tucker": k x k convolutions; "auto": all, and of
             these two the one that loses less at equal MACs
    rank     "vbmf": what is signal and not noise in the weights; "energy": what keeps the fraction `energy` of the
             squared weights; a whole number: that rank everywhere; a fraction below 1: of each layer's full rank
    energy   in (0, 1)
    macs     instead of `rank`, what the whole net may cost at most (`Budget`: "60%", "12M"), in the competition's
             convention. Never exceeded; the ranks lose the least energy per MAC saved
    layers   glob patterns of the layers to split
    protect  glob patterns of layers that stay in one piece
    """

    currency: ClassVar[str | None] = "macs"
    method: str = "auto"
    rank: Literal["vbmf", "energy"] | int | float = "vbmf"
    energy: float = 0.9
    macs: str | int | None = None
    layers: tuple[str, ...] = ("*",)
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not 0 < self.energy < 1:
            raise InputError(f"energy is the fraction of the squared weights kept, in (0, 1), got {self.energy}")
        if self.macs is not None:
            Budget.of(self.macs, "macs")
        if isinstance(self.rank, str):
            fine = self.rank in ("vbmf", "energy")
        else:
            fine = 0 < self.rank < 1 or (self.rank >= 1 and self.rank == int(self.rank))
        if not fine:
            raise InputError(
                f'rank must be "vbmf", "energy", a whole number of at least 1 or a fraction below 1, got {self.rank!r}'
            )

    def decide(self, model: nn.Module, context: StepContext) -> DecomposePlan:
        """Choose methods and ranks. `InputError` when no layer would gain, or the budget cannot be reached."""
        note_from, model = model, materialized(model)
        modules, left = layers_of(model, self.layers, self.protect)
        candidates = self._candidates(model, context.example, modules, left)
        before = macs(model, context.example)
        by_rule = self.macs is None
        while True:
            chosen = self._by_rule(candidates, left) if by_rule else self._within_budget(candidates, before, left)
            if not chosen:
                raise InputError(f"nothing would be split: {_named(left) or 'no layer was chosen'}")
            layers = {path: one.row(chosen[path]) for path, one in candidates.items() if path in chosen}
            read = self._read_outside(model, context.example, layers)
            if not read:
                break
            left |= dict.fromkeys(read, "its weight is read by other modules")
            candidates = {path: one for path, one in candidates.items() if path not in read}
        note_computed(note_from, tuple(layers), context.log)
        smaller = DecomposePlan(layers=layers, saves={}, left=left).cut(copied(model))
        saves = {"macs": (before, macs(smaller, context.example)), "params": (params(model), params(smaller))}
        return DecomposePlan(layers=layers, saves=saves, left=left)

    def _read_outside(self, model: nn.Module, example: Example, layers: dict[str, dict[str, Any]]) -> list[str]:
        """The layers that the net cannot do without as they are: it fails when they are split."""

        def runs(layers: dict[str, dict[str, Any]]) -> bool:
            probe = DecomposePlan(layers=layers, saves={}, left={}).cut(copied(model)).eval()
            try:
                with torch.no_grad():  # not as judged: the fast paths of PyTorch's transformers read weights too
                    call(probe, one_for(probe, example))
            except Exception:  # whatever the net does with a weight that is gone
                return False
            return True

        return [] if runs(layers) else [path for path, row in layers.items() if not runs({path: row})]

    def _candidates(
        self, model: nn.Module, example: Example, modules: Mapping[str, nn.Module], left: dict[str, str]
    ) -> dict[str, _Candidate]:
        """The layers that can be split; the others are added to `left`."""
        places, found = _places(model, example, modules), {}
        for path, module in modules.items():
            named = METHODS[1:] if self.method == "auto" else (self.method,)
            reasons = {method: _misfit(module, method) for method in named}
            methods = [method for method, reason in reasons.items() if not reason]
            if not methods or not places[path].outputs:
                left[path] = "it is never called" if methods else next(iter(reasons.values()))
                continue
            weight = sound_weight(path, module)
            curves = [curve(method, weight, places[path]) for method in methods]
            found[path] = _Candidate(weight=weight, whole=whole_macs(weight.shape, places[path]), curves=curves)
        return found

    def _by_rule(self, candidates: Mapping[str, _Candidate], left: dict[str, str]) -> dict[str, Choice]:
        """Choices by `rank` for the layers that gain; the others are added to `left`."""
        rules: dict[Any, Rule] = {"vbmf": by_vbmf, "energy": by_energy(self.energy)}
        rule, chosen = rules[self.rank] if isinstance(self.rank, str) else by_number(self.rank), {}
        for path, one in candidates.items():
            choice = best(one.curves, one.weight, rule)
            if choice is None:
                left[path] = "all of it looks like noise to VBMF"
            elif choice.macs >= one.whole:
                ranks = ", ".join(map(str, choice.ranks))
                left[path] = (
                    f"it would not gain: {choice.method} at rank {ranks} costs {choice.macs / one.whole:.2f} x its MACs"
                )
            else:
                chosen[path] = choice
        return chosen

    def _within_budget(
        self, candidates: Mapping[str, _Candidate], before: int, left: dict[str, str]
    ) -> dict[str, Choice]:
        """Choices by which the whole net, of `before` MACs, meets the budget; other layers are added to `left`."""
        limit = Budget.of(self.macs, "macs").limit(before)
        if limit >= before:
            raise InputError(f"nothing to do: macs must come below {before:,}, which the net has, got {limit:,.0f}")
        fronts = {path: front(one.curves, one.whole) for path, one in candidates.items()}
        stuck = [path for path, one in fronts.items() if not one.choices]
        left |= dict.fromkeys(stuck, "it would not gain at any rank")
        fronts = {path: one for path, one in fronts.items() if one.choices}
        least = before - sum(one.whole - one.choices[-1].macs for one in fronts.values())
        if least > limit:
            protected = f". What stays in one piece: {_named(left)}" if left else ""
            raise InputError(f"macs {limit:,.0f} cannot be reached: the least is {least:,}{protected}")
        chosen = within_budget(fronts, before - limit)
        left |= dict.fromkeys((path for path in fronts if path not in chosen), "the budget is met without it")
        return chosen


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A layer that can be split: its values, its MACs in one piece, what its methods cost and lose."""

    weight: Tensor
    whole: int
    curves: list[Curve]

    def row(self, choice: Choice) -> dict[str, Any]:
        """What the plan says of this layer."""
        return {
            "method": choice.method,
            "ranks": choice.ranks,
            "shape": tuple(self.weight.shape),
            "macs": (self.whole, choice.macs),
            "lost": choice.lost,
        }


def _misfit(module: nn.Module, method: str) -> str:
    """Why `method` cannot split `module`, or ""."""
    kind = counted_class(module)
    if kind is nn.Linear:
        return "" if method == "svd" else f"{method} is for k x k convolutions"
    if kind is not nn.Conv2d:
        return f"it is a {kind.__name__}: only plain Conv2d and Linear are split"
    if module.groups > 1:
        return f"its convolution is grouped ({module.groups} groups)"
    if method == "svd":
        return "" if module.kernel_size == (1, 1) else "svd is for 1x1 convolutions and linear layers"
    if method == "spatial":
        return "" if min(module.kernel_size) > 1 else "spatial is for kernels larger than 1 both ways"
    return "" if max(module.kernel_size) > 1 else "tucker is for k x k convolutions"


def _places(model: nn.Module, example: Example, modules: Mapping[str, nn.Module]) -> dict[str, Places]:
    """Where each layer computes on one image; zeros for a layer whose weight is read without calling it."""
    found = dict.fromkeys(modules, Places())

    def note(path: str, module: nn.Module, taken: Tensor, made: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            between = made[..., 0, :, 0].numel() * taken.shape[-1]
            counts = taken[..., 0, :, :].numel(), between, made[..., 0, :, :].numel()
        else:
            counts = (made[..., 0].numel(),) * 3
        old = found[path]
        totals = (old.inputs + counts[0], old.between + counts[1], old.outputs + counts[2])
        found[path] = Places(inputs=totals[0], between=totals[1], outputs=totals[2])

    probe = copied(model)
    for path in modules:
        probe.get_submodule(path).register_forward_hook(
            lambda module, inputs, named, output, path=path: note(path, module, [*inputs, *named.values()][0], output),
            with_kwargs=True,
        )
    with as_judged(probe):
        run(probe, one_for(probe, example))
    return found


def _named(left: Mapping[str, str]) -> str:
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return "; ".join(f"{path} ({reason})" for path, reason in list(left.items())[:_SHOWN]) + more
