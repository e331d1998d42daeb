"""The numbers of channels whose true cost comes closest to a limit from below.

First one pressure for the whole net is searched. Where the numbers that a net can have lie too far apart for that
(groups, shuffles, one threshold that moves a whole stage), the search goes on between the nearest nets on both sides of
the limit, at last by single steps of single layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd, lcm

from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.targets import BISECTIONS, Bounds, Targets, largest_within
from solution.contracts import InputError

PRESSURES, MOST_PRESSURES, MOST_REPAIRS = 3, 8, 20
"""Plans under one pressure, up to the second number while none is within the limit; then plans that repair the best."""
MOST_FAILURES, MOST_STARTS = 3, 4
"""How often a layer may come out otherwise than asked for before it is left alone; how many nets are varied."""


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

    def met(self, cost: float) -> bool:
        """Whether `cost` is within the limit, and uses it up."""
        return self.limit * (1 - self.tolerance) <= cost <= self.limit


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a plan came to. numbers: atom -> how many components stay, which may differ from what was asked for."""

    plan: ChannelPlan | None
    numbers: Targets
    cost: float


Planned = Callable[[Targets], tuple[ChannelPlan, Targets]]
Estimate = Callable[[Targets], float]


def meet(budget: CostLimit, bounds: Bounds, estimate: Estimate, planned: Planned) -> ChannelPlan:
    """The plan that comes closest to the budget from below. The estimate leads, the true cost corrects it.

    planned  the plan for wanted numbers, and the numbers that it has
    `InputError` names the least cost that can be reached, and what protects the rest.
    """

    def attempt(targets: Targets) -> Outcome:
        plan, numbers = planned(targets)
        return Outcome(plan=plan, numbers={atom: numbers[atom] for atom in bounds.size}, cost=budget.measure(plan))

    tried = _under_pressure(budget, bounds, estimate, attempt)
    if all(outcome.cost > budget.limit for outcome in tried):
        tried.append(attempt(bounds.lowest()))
        if tried[-1].cost > budget.limit:
            raise InputError(_unreachable(budget, tried[-1]))
    if not any(budget.met(outcome.cost) for outcome in tried):
        whole = Outcome(plan=None, numbers=dict(bounds.size), cost=budget.before)
        tried = _Repair(budget, bounds, estimate, [whole, *tried]).run(attempt)
    within = [outcome for outcome in tried if outcome.cost <= budget.limit and outcome.plan is not None]
    best = max(within, key=lambda outcome: outcome.cost).plan
    assert best is not None
    return best


def _under_pressure(
    budget: CostLimit, bounds: Bounds, estimate: Estimate, attempt: Callable[[Targets], Outcome]
) -> list[Outcome]:
    tried: dict[tuple[int, ...], Outcome] = {}
    low, high = 0.0, estimate(bounds.size)
    aim = budget.limit * high / budget.before
    for _ in range(BISECTIONS):
        targets = largest_within(aim, bounds, estimate)
        asked = tuple(targets.values())
        if asked not in tried:
            within = any(outcome.cost <= budget.limit for outcome in tried.values())
            if len(tried) >= (PRESSURES if within else MOST_PRESSURES):
                break
            tried[asked] = attempt(targets)
        cost = tried[asked].cost
        if budget.met(cost):
            break
        low, high = (aim, high) if cost <= budget.limit else (low, aim)
        aim *= budget.limit * (1 - budget.tolerance / 4) / cost
        aim = aim if low < aim < high else (low + high) / 2
    return list(tried.values())


class _Repair:
    """Closes in on the limit from nets that are known on both sides of it."""

    def __init__(self, budget: CostLimit, bounds: Bounds, estimate: Estimate, tried: list[Outcome]) -> None:
        self.budget, self.bounds, self.estimate, self.tried = budget, bounds, estimate, tried
        self.aim = budget.limit * (1 - budget.tolerance / 3)
        self.scale = budget.before / estimate(bounds.size)
        self.failures: Counter[int] = Counter()
        self.grain = dict(bounds.multiple)
        self._learn_steps()

    def run(self, attempt: Callable[[Targets], Outcome]) -> list[Outcome]:
        """What was tried besides, the last of which meets the limit if any does."""
        known = [outcome.numbers for outcome in self.tried]
        for _ in range(MOST_REPAIRS):
            fresh = (choice for choice in self._choices() if choice[0] not in known)
            targets = next((numbers for numbers, cost in fresh if self.budget.met(cost)), None)
            if targets is None:
                break
            found = attempt(targets)
            self.tried.append(found)
            if self.budget.met(found.cost):
                break
            known += [targets, found.numbers]
            self.failures.update(atom for atom, wanted in targets.items() if found.numbers[atom] != wanted)
            self._learn_steps()
        return self.tried[1:]

    def _choices(self) -> Iterator[tuple[Targets, float]]:
        """Numbers and what they should cost, those nearest to what the ranking wants first."""
        yield self._between()
        starts = sorted(self.tried, key=lambda outcome: abs(outcome.cost - self.aim))
        for start in starts:
            yield self._stepped(start, dict(start.numbers))
        for start in starts[:MOST_STARTS]:  # one layer down, others up
            for atom in self._movable():
                yield self._stepped(start, {**start.numbers, atom: self._moved(start.numbers, atom, -1)})

    def _movable(self) -> list[int]:
        return [atom for atom in self.bounds.size if self.failures[atom] < MOST_FAILURES]

    def _moved(self, numbers: Targets, atom: int, steps: int) -> int:
        """The number of an atom so many of its steps further, if it may have that."""
        number = numbers[atom] + steps * self.grain[atom]
        number = min(number, self.bounds.size[atom])
        return number if number >= self.bounds.least[atom] else numbers[atom]

    def _learn_steps(self) -> None:
        """Numbers that layers came out with tell in which steps they go."""
        for atom, size in self.bounds.size.items():
            seen = gcd(*(size - outcome.numbers[atom] for outcome in self.tried))
            self.grain[atom] = lcm(self.bounds.multiple[atom], seen if 1 < seen <= size // 2 else 1)

    def _between(self) -> tuple[Targets, float]:
        """A share of the way from the best net within the limit to the nearest beyond it."""
        limit = self.budget.limit
        under = max((one for one in self.tried if one.cost <= limit), key=lambda one: one.cost)
        over = min((one for one in self.tried if one.cost > limit), key=lambda one: one.cost)
        base, whole = self.estimate(under.numbers), self.estimate(over.numbers)
        slope = (over.cost - under.cost) / max(whole - base, 1e-9)

        def mixed(share: float) -> tuple[Targets, float]:
            numbers = {
                atom: self._moved(under.numbers, atom, int(share * (over.numbers[atom] - number) / self.grain[atom]))
                for atom, number in under.numbers.items()
            }
            return numbers, under.cost + slope * (self.estimate(numbers) - base)

        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if mixed(middle)[1] <= self.aim else (low, middle)
        return mixed(low)

    def _stepped(self, start: Outcome, numbers: Targets) -> tuple[Targets, float]:
        """`numbers`, near those of `start`, single steps of single atoms further until the cost should be right."""
        base, movable = self.estimate(start.numbers), self._movable()

        def costs(numbers: Targets) -> float:
            return start.cost + self.scale * (self.estimate(numbers) - base)

        cost = costs(numbers)
        while True:
            direction = -1 if cost > self.budget.limit else 1
            moves = {atom: self._moved(numbers, atom, direction) for atom in movable}
            after = {atom: costs({**numbers, atom: n}) for atom, n in moves.items() if n != numbers[atom]}
            if direction > 0:
                after = {atom: one for atom, one in after.items() if cost < one <= self.aim}
            if not after or (direction > 0 and cost >= self.aim):
                return numbers, cost
            atom = min(after, key=lambda one: (after[one] < self.aim and direction < 0, abs(after[one] - self.aim)))
            numbers, cost = {**numbers, atom: moves[atom]}, after[atom]


def _unreachable(budget: CostLimit, lowest: Outcome) -> str:
    kept = [] if lowest.plan is None else list(lowest.plan.kept.items())
    protected = "; ".join(f"{layer} ({reason})" for layer, reason in kept[:4])
    rest = (
        f"What protects the rest: {protected}" if protected else "Every layer is down to its least number of channels"
    )
    return f"{budget.name} {budget.limit:,.6g} cannot be reached: the least is {lowest.cost:,.6g}. {rest}"
