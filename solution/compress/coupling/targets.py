"""From "this much" to "so many channels in each atom", and the sizes whose true cost comes closest to a limit.

Targets follow from a uniform share or from one threshold over all layers. What other sizes would cost is estimated by
arithmetic: every layer's cost is a product of its axes' lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from math import prod

import numpy as np

from solution.compress.coupling.analysis import Analysis
from solution.compress.coupling.components import NO_COMPONENT, Coupling
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.sizes import Classes
from solution.compress.coupling.tracing import layer_macs
from solution.contracts import InputError


class Estimator:
    """Estimated MACs or parameters for any number of channels per class.

    Numbers need not be whole. Products without a weight (attention) and tensors without channels keep their cost.
    """

    def __init__(self, full: Analysis, classes: Classes, currency: str) -> None:
        """currency: "macs" or "params"."""
        costs = layer_macs(full.traces[0]) if currency == "macs" else _tensor_sizes(full)
        self.sizes, self.of = classes.size, classes.of
        sides = [side for side in full.coupling.sides if side.tensor in costs]
        tensors = {name: row for row, name in enumerate(costs)}
        self.costs = np.array(list(costs.values()), dtype=float)
        self.row = np.array([tensors[side.tensor] for side in sides], dtype=int)
        self.share = np.zeros((len(sides), len(classes.size)))
        for number, side in enumerate(sides):
            np.add.at(self.share[number], classes.of[side.component], 1 / len(side.component))

    def __call__(self, counts: np.ndarray) -> float:
        """counts: (classes,) how many components of each stay."""
        left = np.ones(len(self.costs))
        np.multiply.at(left, self.row, self.share @ (counts / self.sizes))
        return float(left @ self.costs)

    def of_each(self) -> np.ndarray:
        """(components,) what each costs while all others are there."""
        return ((self.costs[self.row] @ self.share) / self.sizes)[self.of]


def _tensor_sizes(full: Analysis) -> dict[str, int]:
    trace = full.traces[0]
    pairs = zip(trace.tensors, trace.shapes, strict=False)
    return {name: prod(shape) for name, shape in pairs if name in trace.parameters}


Targets = dict[int, int]
"""Atom -> how many of its components are to stay."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The atoms that may shrink: how many components each has, how few it may come down to, which number it steps in.

    share  (atoms,) -> real-valued fraction of an atom's removable components that stay, for a pressure in [0, 1]
    """

    size: dict[int, int]
    least: dict[int, int]
    multiple: dict[int, int]
    share: Callable[[float], dict[int, float]]

    def exact(self, ratio: float) -> dict[int, float]:
        """Atom -> how many components would stay, not yet whole, but within bounds."""
        return {
            atom: max(float(self.least[atom]), self.size[atom] * share) for atom, share in self.share(ratio).items()
        }

    def whole(self, ratio: float) -> Targets:
        """The same, rounded to the nearest multiple that may be had."""
        return {atom: self._stepped(atom, number) for atom, number in self.exact(ratio).items()}

    def _stepped(self, atom: int, number: float) -> int:
        step, least, size = self.multiple[atom], self.least[atom], self.size[atom]
        stepped = max(step, round(number / step) * step)
        return min(size, stepped if stepped >= least else -(-least // step) * step)

    def lowest(self) -> Targets:
        """As few as may be."""
        return {atom: self._stepped(atom, least) for atom, least in self.least.items()}


def bounds_of(
    coupling: Coupling, classes: Classes, limits: Mapping[str, float], round_to: int, score: np.ndarray | None
) -> Bounds:
    """What may shrink and how: with a `score` (components,) by one threshold over all layers, else in equal shares.

    limits  glob pattern of layers -> the largest fraction of their channels that may go
    """
    sizes, kept = classes.atom_sizes(), coupling.kept()
    free = [int(atom) for atom in np.unique(coupling.atom[~kept]) if atom != NO_COMPONENT]
    most = _most(coupling, limits)
    fixed = {atom: int((kept & (coupling.atom == atom)).sum()) for atom in free}
    least = {a: max(1, fixed[a], int(np.ceil(sizes[a] * (1 - most.get(a, 1.0)) - 1e-9))) for a in free}
    return Bounds(
        size={atom: sizes[atom] for atom in free},
        least=least,
        multiple={atom: round_to if sizes[atom] >= round_to else 1 for atom in free},
        share=_equal_shares(free) if score is None else _threshold(coupling, free, score),
    )


def _most(coupling: Coupling, limits: Mapping[str, float]) -> dict[int, float]:
    most: dict[int, float] = {}
    for side in coupling.sides:
        layer = side.tensor.rpartition(".")[0]
        fits = [fraction for pattern, fraction in limits.items() if fnmatch(layer, pattern)]
        if side.role == "out" and fits:
            for atom in np.unique(coupling.atom[side.component]).tolist():
                most[atom] = min([most.get(atom, 1.0), *fits])
    return most


def _equal_shares(free: list[int]) -> Callable[[float], dict[int, float]]:
    return lambda ratio: dict.fromkeys(free, 1 - ratio)


def _threshold(coupling: Coupling, free: list[int], score: np.ndarray) -> Callable[[float], dict[int, float]]:
    kept = coupling.kept()
    everything = np.sort(score[~kept & np.isin(coupling.atom, free)])
    members = {atom: np.where(kept[coupling.atom == atom], np.inf, score[coupling.atom == atom]) for atom in free}

    def share(ratio: float) -> dict[int, float]:
        place = min(len(everything) - 1, int(ratio * len(everything)))
        return {atom: float((scores >= everything[place]).mean()) for atom, scores in members.items()}

    return share


def spread(classes: Classes, targets: Targets) -> np.ndarray:
    """(classes,) real-valued numbers that stay when each atom's are shared in proportion."""
    counts = classes.size.astype(float)
    for atom, number in targets.items():
        of_atom = classes.atom == atom
        kept, free = of_atom & classes.kept, of_atom & ~classes.kept
        bounds = classes.size[free].sum()
        if bounds:
            counts[free] *= max(0.0, number - classes.size[kept].sum()) / bounds
    return counts


MOST_PLANS = 8
BISECTIONS = 24


@dataclass(frozen=True, kw_only=True)
class CostLimit:
    """What the cut net may cost.

    name       the currency, for messages
    before     what the full net costs
    limit      what the cut net may cost at most
    tolerance  the fraction of the limit that may stay unused
    measure    the true cost of the net that a plan makes, in the unit of the limit
    """

    name: str
    before: float
    limit: float
    tolerance: float
    measure: Callable[[ChannelPlan], float]

    def __post_init__(self) -> None:
        if not 0 < self.limit < self.before:
            raise InputError(
                f"{self.name} must come below {self.before:,.6g}, which the net has, got {self.limit:,.6g}"
            )


def meet(
    budget: CostLimit, bounds: Bounds, estimate: Callable[[Targets], float], plan: Callable[[Targets], ChannelPlan]
) -> ChannelPlan:
    """The plan that comes closest to the budget from below. The estimate leads, the true cost corrects it.

    `InputError` names the least cost that can be reached, and what protects the rest.
    """
    tried: dict[tuple[int, ...], tuple[float, ChannelPlan]] = {}
    low, high = 0.0, estimate(bounds.size)
    aim = budget.limit * high / budget.before
    for _ in range(BISECTIONS):
        targets = largest_within(aim, bounds, estimate)
        numbers = tuple(targets.values())
        if numbers not in tried:
            if len(tried) == MOST_PLANS:
                break
            made = plan(targets)
            tried[numbers] = budget.measure(made), made
        cost = tried[numbers][0]
        if budget.limit * (1 - budget.tolerance) <= cost <= budget.limit:
            break
        low, high = (aim, high) if cost <= budget.limit else (low, aim)
        aim *= budget.limit * (1 - budget.tolerance / 4) / cost
        aim = aim if low < aim < high else (low + high) / 2
    within = [outcome for outcome in tried.values() if outcome[0] <= budget.limit]
    return max(within, key=lambda outcome: outcome[0])[1] if within else _least(budget, plan(bounds.lowest()))


def _least(budget: CostLimit, lowest: ChannelPlan) -> ChannelPlan:
    """The plan with as little as may be, if that is little enough."""
    least = budget.measure(lowest)
    if least > budget.limit:
        raise InputError(_unreachable(budget, least, lowest))
    return lowest


def largest_within(aim: float, bounds: Bounds, estimate: Callable[[Targets], float]) -> Targets:
    """The numbers under the least pressure whose estimate is at most `aim`, then single steps more while any fits."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if estimate(bounds.whole(middle)) <= aim else (middle, high)
    targets, exact = bounds.whole(high), bounds.exact(high)
    fitted = True
    while fitted:
        fitted = False
        for atom in sorted(targets, key=lambda atom: targets[atom] - exact[atom]):
            more = {**targets, atom: min(bounds.size[atom], targets[atom] + bounds.multiple[atom])}
            if more != targets and estimate(more) <= aim:
                targets, fitted = more, True
    return targets


def _unreachable(budget: CostLimit, least: float, plan: ChannelPlan) -> str:
    protected = "; ".join(f"{layer} ({reason})" for layer, reason in list(plan.kept.items())[:4])
    rest = (
        f"What protects the rest: {protected}" if protected else "Every layer is down to its least number of channels"
    )
    return f"{budget.name} {budget.limit:,.6g} cannot be reached: the least is {least:,.6g}. {rest}"
