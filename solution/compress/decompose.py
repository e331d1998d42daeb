"""Decomposition: a layer becomes two or three thin ones whose product is near to it.

    import solution as fw
    smaller = fw.Decompose(macs="60%")(model, x)

How a layer is split stands in `solution.compress.factors`, how ranks are found in `solution.compress.ranks`. The plan
holds methods and ranks; the factors are computed from the weights of the net that it is applied to.

Where there are calibration images, ranks are chosen by what outputs lose, factors are fitted to the outputs, biases and
statistics of norms are measured again, unless the outputs change less without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from solution.budget import Budget
from solution.compress.channels.step import recalibrated
from solution.compress.coupling.inputs import AnyNetStep
from solution.compress.factors import Inputs, change, factored, grouped
from solution.compress.layers import layer_for, layers_of, left_alone, savings, sound_weight
from solution.compress.parametrized import materialize, materialized, note_computed
from solution.compress.ranks import (
    Choice,
    Curve,
    Front,
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
from solution.contracts import Example, InputError, Plan, StepContext, copied
from solution.evaluate.cost import counted_class, macs, params
from solution.graph import as_judged, call, images_for, one_for, run
from solution.text import columns

METHODS = ("auto", "svd", "spatial", "tucker")
_SHOWN = 4
_HARM_IMAGES = 64
"""Calibration images by which the harm of splitting a layer is measured, one layer at a time."""
_HARM_SHARE = 0.75
"""The share of its MACs that a layer is then left with, as nearly as its ranks allow."""


@dataclass(frozen=True, kw_only=True)
class DecomposePlan(Plan):
    """Which layers are split, how, and at what ranks.

    layers  path -> {"method", "ranks", "shape": of its weight, "macs": (before, after) without the bias,
            "lost": fraction of the squared weights, or of the squared outputs by calibration images}
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
class Decompose(AnyNetStep):
    """Split layers into thin ones, grouped convolutions group by group. Layers that would not gain are left and named.

    method   "svd": 1x1 convolutions and linear layers; "spatial" or "tucker": k x k convolutions; "auto": all, and of
             these two the one that loses less at equal MACs
    rank     "vbmf": what is signal and not noise in the weights; "energy": what keeps the fraction `energy` of the
             squared weights; a whole number: that rank everywhere; a fraction below 1: of each layer's full rank
    energy   in (0, 1); of the squared outputs where there are calibration images
    macs     instead of `rank`, what the whole net may cost at most (`Budget`: "60%", "12M"), in the competition's
             convention. Never exceeded; the ranks lose the least energy per MAC saved. With calibration images a
             layer's energy counts as much as the net's outputs change when that layer alone is split
    layers   glob patterns of the layers to split
    protect  glob patterns of layers that stay in one piece
    """

    currency: ClassVar[str | None] = "macs"
    recoverable: ClassVar[bool] = True
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
        inputs = Inputs.of(model, modules, _images(context))
        candidates = self._candidates(model, context.example, modules, left, inputs)
        before = macs(model, context.example)
        if self.macs is None:
            chosen = self._by_rule(candidates, left)
        else:
            fronts = self._fronts(candidates, before, left)
            if inputs.images:
                context.log(f"measuring what the outputs lose when each of {len(fronts)} layers alone is split")
            excess = before - Budget.of(self.macs, "macs").limit(before)
            chosen = within_budget(fronts, excess, _harm(model, candidates, fronts, inputs))
            left |= dict.fromkeys((path for path in fronts if path not in chosen), "the budget is met without it")
        if not chosen:
            raise InputError(f"nothing would be split: {_named(left) or 'no layer was chosen'}")
        note_computed(note_from, tuple(chosen), context.log)
        layers = {path: one.row(chosen[path]) for path, one in candidates.items() if path in chosen}
        smaller = DecomposePlan(layers=layers, saves={}, left=left).cut(copied(model))
        saves = {"macs": (before, macs(smaller, context.example)), "params": (params(model), params(smaller))}
        return DecomposePlan(layers=layers, saves=saves, left=left)

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The split by weights alone: the budget, or the rule for ranks, decides what it costs."""
        return self.run(model, dataclasses.replace(context, calibration=None))

    def apply(self, plan: Plan, model: nn.Module, context: StepContext) -> nn.Module:
        """Split, and where there are calibration images fit to the outputs and measure norms again, as far as that
        changes the net's outputs less.
        """
        assert isinstance(plan, DecomposePlan)  # as this step made it
        whole = materialized(model)
        inputs = Inputs.of(whole, {path: whole.get_submodule(path) for path in plan.layers}, _images(context))
        if not inputs.images:
            return plan.apply(model)
        fitted = plan.apply(model)
        inputs.fit(fitted, whole, plan.layers)
        ways = {"fitted factors": fitted, "the nearest factors": plan.apply(model)}
        batches = [(images_for(fitted, images), torch.empty(0)) for images in inputs.images]
        ways |= {f"{name}, norms measured again": recalibrated(copied(net), batches) for name, net in ways.items()}
        exact = inputs.outputs(whole)
        lost = {name: change(inputs.outputs(net), exact) for name, net in ways.items()}
        best_way = min(lost, key=lost.__getitem__)
        context.log(f"{best_way}: the outputs for calibration images change by {100 * lost[best_way]:.2f} %")
        return ways[best_way]

    def _candidates(
        self,
        model: nn.Module,
        example: Example,
        modules: Mapping[str, nn.Module],
        left: dict[str, str],
        inputs: Inputs,
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
            shape, weight = tuple(sound_weight(path, module).shape), grouped(module)
            curves = [curve(method, inputs.weigh(path, method, weight), places[path]) for method in methods]
            whole = whole_macs(shape, places[path])
            found[path] = _Candidate(weight=weight, shape=shape, whole=whole, curves=curves)
        read = _read_outside(model, example, {path: one.row(one.curves[0].choice(0)) for path, one in found.items()})
        left |= dict.fromkeys(read, "its weight is read by other modules")
        return {path: one for path, one in found.items() if path not in read}

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

    def _fronts(self, candidates: Mapping[str, _Candidate], before: int, left: dict[str, str]) -> dict[str, Front]:
        """What the layers that gain may become; the others are added to `left`. `InputError` when all is too little."""
        limit = Budget.of(self.macs or 0, "macs").limit(before)
        if limit >= before:
            raise InputError(f"nothing to do: macs must come below {before:,}, which the net has, got {limit:,.0f}")
        fronts = {path: front(one.curves, one.whole) for path, one in candidates.items()}
        left |= {path: "it would not gain at any rank" for path, one in fronts.items() if not one.choices}
        fronts = {path: one for path, one in fronts.items() if one.choices}
        least = before - sum(one.whole - one.choices[-1].macs for one in fronts.values())
        if least > limit:
            protected = f". What stays in one piece: {_named(left)}" if left else ""
            raise InputError(f"macs {limit:,.0f} cannot be reached: the least is {least:,}{protected}")
        return fronts


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A layer that can be split: its values (G, O, I, kh, kw), its MACs in one piece, what its methods cost and lose.

    shape: of the weight as it is stored.
    """

    weight: Tensor
    shape: tuple[int, ...]
    whole: int
    curves: list[Curve]

    def row(self, choice: Choice) -> dict[str, Any]:
        """The row of this layer in the plan."""
        return {
            "method": choice.method,
            "ranks": choice.ranks,
            "shape": self.shape,
            "macs": (self.whole, choice.macs),
            "lost": choice.lost,
        }


def _read_outside(model: nn.Module, example: Example, layers: dict[str, dict[str, Any]]) -> list[str]:
    """The layers without which, as they are, the net does not run."""

    def runs(layers: dict[str, dict[str, Any]]) -> bool:
        probe = DecomposePlan(layers=layers, saves={}, left={}).cut(copied(model)).eval()
        try:
            with torch.no_grad():  # not as judged: the fast paths of PyTorch's transformers read weights too
                call(probe, one_for(probe, example))
        except Exception:  # whatever the net does with a weight that is gone
            return False
        return True

    return [] if runs(layers) else [path for path, row in layers.items() if not runs({path: row})]


def _images(context: StepContext) -> list[Tensor]:
    return [] if context.calibration is None else [images for images, _ in context.calibration]


def _harm(
    model: nn.Module, candidates: Mapping[str, _Candidate], fronts: Mapping[str, Front], inputs: Inputs
) -> dict[str, float]:
    """{layer: how far the net's outputs change for the energy that this layer alone loses when it is split}."""
    if not inputs.images:
        return {}
    exact, found = inputs.outputs(model, _HARM_IMAGES), {}
    for path, one in fronts.items():
        choice = min(one.choices, key=lambda choice: abs(choice.macs - _HARM_SHARE * one.whole))
        row = {path: candidates[path].row(choice)}
        probe = DecomposePlan(layers=row, saves={}, left={}).cut(copied(model))
        inputs.fit(probe, model, row)
        found[path] = change(inputs.outputs(probe, _HARM_IMAGES), exact) / max(choice.lost, 1e-6)
    return found


def _misfit(module: Any, method: str) -> str:
    """Why `method` cannot split `module`, or ""."""
    kind = counted_class(module)
    if kind is nn.Linear:
        return "" if method == "svd" else f"{method} is for k x k convolutions"
    if kind is not nn.Conv2d:
        return f"it is a {kind.__name__}: only plain Conv2d and Linear are split"
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
