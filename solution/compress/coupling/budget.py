"""Meeting a budget: the sizes whose true cost comes closest to it without going over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.targets import Bounds, Targets
from solution.contracts import InputError

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
