"""Channel pruning: fewer channels in every layer, of any net, by a share or down to a budget.

    import solution as fw
    smaller = fw.PruneChannels(ratio=0.5)(model, x)

Which channels belong together is read from the net's own forward (`solution.compress.coupling`), so channel shuffle,
grouped convolutions, chunks, dense concatenation and attention heads need no rule per model, and the cut net is made of
the same modules as the full one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from solution.budget import Budget
from solution.compress.channels.importance import CRITERIA, OF_GRADIENTS, component_scores
from solution.compress.channels.reconstruct import held_out, reconstruct
from solution.compress.channels.selection import written_plan
from solution.compress.coupling.analysis import Analysis, TraceRequest, analyze
from solution.compress.coupling.equality import verified
from solution.compress.coupling.fitting import fit
from solution.compress.coupling.inputs import batch_of, call, prepared
from solution.compress.coupling.limit import CostLimit, meet
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.sizes import classes_of
from solution.compress.coupling.targets import Bounds, Estimator, Spread, Targets, bounds_of
from solution.compress.coupling.tracing import named_tensors
from solution.compress.factors import Inputs, change
from solution.compress.parametrized import computed, materialized, note_computed
from solution.contracts import Batches, InputError, Plan, StepContext, StructuralStep, copied
from solution.evaluate.cost import latency_ratio, macs, median_latency_ms, params, rewarded_multiple, times_ms, watched
from solution.evaluate.ram import memory
from solution.graph import as_judged

RANKINGS = ("uniform", "global", "per_cost")
BUDGETS = {"macs": "macs", "params": "params", "bytes": "bytes", "ram": "bytes", "latency": "ms"}
"""Setting -> what it limits, as `Budget` calls it."""
TOLERANCES = {"latency": 0.05, "ram": 0.1}
"""The fraction of a budget that may stay unused, 1 % of all others; a clock that differs takes the other 5 %."""
MULTIPLES, REWARD = (1, 4, 8, 16, 32), 0.03
"""What ``round_to="auto"`` tries, and the share of time that a multiple must save."""


@dataclass(frozen=True, kw_only=True)
class PruneChannels(StructuralStep):
    """Take channels out. Give either `ratio` or one budget.

    ratio       share of the channels that goes, in (0, 1)
    macs, params, bytes, ram, latency
                what the cut net may cost at most: "50%" of what the net costs now, or a number such as "12M",
                "64 KiB", "2 ms". Met within 1 % or one channel group (ram, latency 10 %), never exceeded. MACs in the
                competition's convention, bytes of all tensors, ram as `solution.evaluate.ram` estimates what one image
                in int8 takes on a microcontroller, latency of one image on `context.device`: the median of the ratios
                to the full net, which is timed in turns with every cut one
    ranking     "uniform": each layer loses the same share; "global": the least important channels of all layers go;
                "per_cost": those that are worth least per multiply-accumulate (per parameter when the budget counts
                parameters or bytes) that they cost
    importance  what makes a channel worth keeping: group_norm, l1, l2, fpgm, bn_scale, random, or on calibration
                batches taylor, fisher, hessian, activation
    round_to    channel numbers become multiples of this where the layer has so many; "auto" takes the multiple that
                runs fastest for its MACs on `context.device`, measured in turns
    limits      glob pattern of layers -> the largest fraction of their channels that may go
    protect     glob patterns of layers that keep all their channels
    reconstruct fit the layers that read fewer channels to give what they gave before, on calibration batches
    outputs     positions of the outputs that must keep their shape, when a forward returns several; () means all
    approximate cut also what mixes neighbouring channels (local response norm, attention by a convolution over
                channels, sorted or running values): no cut equals the full net there, and the plan prints the change
    verify      run the cut net and the full one without the channels that go on the example: they must be equal
    """

    currency: ClassVar[str | None] = "macs"
    recoverable: ClassVar[bool] = True
    ratio: float | None = None
    macs: str | int | None = None
    params: str | int | None = None
    bytes: str | int | None = None
    ram: str | int | None = None
    latency: str | int | None = None
    ranking: str = "uniform"
    importance: str = "group_norm"
    round_to: int | Literal["auto"] = 1
    limits: dict[str, float] = field(default_factory=dict)
    protect: tuple[str, ...] = ()
    reconstruct: bool = False
    outputs: tuple[int, ...] = ()
    approximate: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        named = [name for name in ("ratio", *BUDGETS) if getattr(self, name) is not None]
        if len(named) != 1:
            raise InputError(f"give ratio or one of {', '.join(BUDGETS)}, got {', '.join(named) or 'none of them'}")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise InputError(f"ratio is the share of the channels that goes, between 0 and 1, got {self.ratio}")
        if self.budget is not None:
            checked = Budget.of(getattr(self, self.budget), BUDGETS[self.budget], self.budget)
            if isinstance(getattr(self, self.budget), Budget):
                object.__setattr__(self, self.budget, str(checked))
        if self.ranking not in RANKINGS:
            raise InputError(f"ranking must be one of {', '.join(RANKINGS)}, got {self.ranking!r}")
        if self.importance not in CRITERIA:
            raise InputError(f"importance must be one of {', '.join(CRITERIA)}, got {self.importance!r}")
        if self.round_to != "auto" and (not isinstance(self.round_to, int) or self.round_to < 1):
            raise InputError(f'round_to must be at least 1, or "auto", got {self.round_to}')
        for pattern, fraction in self.limits.items():
            if not 0 <= fraction <= 1:
                raise InputError(f"limits: the fraction for {pattern!r} must lie between 0 and 1, got {fraction}")

    @property
    def budget(self) -> str | None:
        """Which budget is given, None for a ratio."""
        return next((name for name in BUDGETS if getattr(self, name) is not None), None)

    @property
    def needs(self) -> tuple[str, ...]:
        """Calibration pictures for what is measured on them."""
        return ("calibration",) if self.reconstruct or self.importance in ("activation", *OF_GRADIENTS) else ()

    @property
    def uses_train_data(self) -> bool:
        """When layers are fitted to calibration pictures."""
        return self.reconstruct

    def decide(self, model: nn.Module, context: StepContext) -> ChannelPlan:
        """Which channels stay. `InputError` when nothing can go, or the budget cannot be met."""
        model = prepared(model, context.example)
        note_computed(model, [path for path, one in model.named_modules() if computed(one)], context.log)
        model = materialized(model)
        _check_numbers(model)
        request = TraceRequest(
            model=model,
            example=context.example,
            protected=self.protect,
            keeps_output=_Matters(outputs=self.outputs),
            approximate=self.approximate,
        )
        full = analyze(request)
        score = component_scores(model, full.coupling, self.importance, context)
        frozen: dict[int, str] = {}
        classes = classes_of(full.coupling)
        estimator = Estimator(full, classes, "params" if self.budget in ("params", "bytes") else "macs")
        ranked = self._ranked(score, estimator)

        def in_multiples(of: int) -> Bounds:
            return bounds_of(full.coupling, classes, self.limits, of, ranked)

        def planned(targets: Targets) -> tuple[ChannelPlan, Targets]:
            fitted = fit(request, full, targets, bounds.multiple, frozen)
            return written_plan(full, fitted, score), fitted.numbers(classes)

        if isinstance(self.round_to, int):
            bounds = in_multiples(self.round_to)
        else:
            tried = {}
            for multiple in MULTIPLES:
                bounds = in_multiples(multiple)
                tried[multiple] = planned(bounds.whole(self.ratio or 0.5))[0]
            bounds = in_multiples(_rewarded(model, tried, context))
        if self.ratio is not None:
            return self._checked(planned(bounds.whole(self.ratio))[0], full, model, context)
        spread = Spread(classes)

        def estimate(targets: Targets) -> float:
            return estimator(spread({atom: number for atom, number in targets.items() if atom not in frozen}))

        return self._checked(meet(self._budget(model, context), bounds, estimate, planned), full, model, context)

    def apply(self, plan: Plan, model: nn.Module, context: StepContext) -> nn.Module:
        """Cut, and measure batch-norm statistics again where calibration batches are given. With `reconstruct` fit what
        is left, as far as that brings the net's outputs nearer to those before.
        """
        assert isinstance(plan, ChannelPlan)  # as this step made it
        cut = plan.apply(model)
        if self.reconstruct:
            return self._reconstructed(cut, model, plan, context)
        return cut if context.calibration is None else recalibrated(cut, context.calibration)

    def _reconstructed(self, cut: nn.Module, model: nn.Module, plan: ChannelPlan, context: StepContext) -> nn.Module:
        """Of `cut` with its layers fitted or not, and its norms measured again or not, what changes outputs least."""
        batches = list(context.need("calibration", "reconstruct"))
        images, whole = [batch[0] for batch in batches], materialized(model)
        fitted = copied(cut)
        reconstruct(fitted, whole, plan.rows(), images)
        ways = {
            "layers fitted": fitted,
            "layers fitted, norms measured again": recalibrated(copied(fitted), batches),
            "norms measured again, no layer fitted": recalibrated(copied(cut), batches),
        }
        judged = Inputs(images=tuple(held_out(images)))
        exact = judged.outputs(whole)
        lost = {name: change(judged.outputs(net), exact) for name, net in ways.items()}
        best = min(lost, key=lost.__getitem__)
        context.log(f"{best}: outputs for pictures that were not fitted to change by {100 * lost[best]:.2f} %")
        return ways[best]

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """Decide, then apply. The net inside a wrapper is cut; lazy layers are initialized by the example."""
        return super().run(prepared(model, context.example), context)

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The cut itself, which nobody verifies."""
        return replace(self, verify=False).run(model, context)

    def _checked(self, plan: ChannelPlan, full: Analysis, model: nn.Module, context: StepContext) -> ChannelPlan:
        """A plan that cuts something, and whose net computes what it should; an error gives the reason."""
        if not plan.tensors:
            reasons = sorted(set(plan.kept.values())) or ["it has no layer with channels"]
            raise InputError(f"nothing would be cut from {len(full.coupling.sides)} axes: {'; '.join(reasons)}")
        return replace(plan, verified=verified(model, plan, context.example)) if self.verify else plan

    def _ranked(self, score: np.ndarray, estimator: Estimator) -> np.ndarray | None:
        """(components,) by what one threshold is drawn, None for equal shares."""
        if self.ranking != "per_cost":
            return score if self.ranking == "global" else None
        return score / np.maximum(estimator.of_each(), 1.0)

    def limit(self, before: float) -> float:
        """What a net that costs `before` now may cost at most, in the base unit of the budget."""
        name = self.budget or ""
        return Budget.of(getattr(self, name), BUDGETS[name], name).limit(before)

    def _budget(self, model: nn.Module, context: StepContext) -> CostLimit:
        name = self.budget or ""
        before = cost_of(name, model, context)

        def measure(plan: ChannelPlan) -> float:
            cut = plan.apply(model)
            if name == "latency":
                return before * latency_ratio(cut, model, context.example, context.device)
            return cost_of(name, cut, context)

        tolerance = TOLERANCES.get(name, 0.01)
        return CostLimit(name=name, before=before, limit=self.limit(before), tolerance=tolerance, measure=measure)


@dataclass(frozen=True, kw_only=True)
class _Matters:
    """Which outputs must keep their shape."""

    outputs: tuple[int, ...]

    def __call__(self, position: int) -> bool:
        return not self.outputs or position in self.outputs


def _rewarded(model: nn.Module, plans: dict[int, ChannelPlan], context: StepContext) -> int:
    """The multiple among `plans` that runs fastest for its MACs."""
    nets = [model, *(plan.apply(model) for plan in plans.values())]
    times = times_ms(nets, context.example, context.device)
    multiple = rewarded_multiple(times, [_macs(net, context.example) for net in nets], list(plans), REWARD)
    context.log(f'round_to="auto": channel numbers are multiples of {multiple}')
    return multiple


def _check_numbers(model: nn.Module) -> None:
    for name, tensor in named_tensors(model).items():
        summed = not tensor.is_floating_point() or bool(tensor.sum().isfinite())  # fast, but sums may overflow
        if not summed and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{name} holds NaN or infinite values: channels cannot be ranked. Load sound weights first"
            )


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, each once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in named_tensors(model).values())


def _macs(model: nn.Module, example: Any) -> float:
    """Multiply-accumulates of one sample in the competition's convention."""
    if isinstance(example, Tensor):
        return macs(model, example)
    counts: list[int] = []
    with as_judged(model), watched(model, lambda _module: None, lambda _module, counted: counts.append(counted)):
        call(model, example)
    return sum(counts) / batch_of(example)


def cost_of(name: str, model: nn.Module, context: StepContext) -> float:
    """What `model` costs in the currency of the budget called `name`."""
    if name == "latency":
        return median_latency_ms(model, context.example, context.device)
    if name == "ram":
        return memory(model, context.example).arena
    if name == "macs":
        return _macs(model, context.example)
    return params(model) if name == "params" else tensor_bytes(model)


def recalibrated(model: nn.Module, batches: Batches) -> nn.Module:
    """Measure the running statistics of every batch norm of `model` afresh, in place: the mean over all batches."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    modes, momenta = {module: module.training for module in model.modules()}, {norm: norm.momentum for norm in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        largest = 0
        for images, _ in batches:
            largest = max(largest, len(images))
            if len(images) > 1 or largest == 1:  # one picture has no spread where a map is 1 x 1
                model(images)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for module, training in modes.items():
        module.training = training
    return model
