"""Which ranks: what each would cost and lose, and the choice among them by a rule or under a budget for all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from torch import Tensor

from solution.compress.factors import bases, principal, tucker_core, unfoldings
from solution.compress.vbmf import rank_by_vbmf
from solution.contracts import InputError


@dataclass(frozen=True, kw_only=True)
class Places:
    """How many places of one image a layer computes at, over all its calls.

    inputs   places of its input
    between  places after a kernel has gone down the picture, before it goes across
    outputs  places of its output
    """

    inputs: int = 0
    between: int = 0
    outputs: int = 0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to write a layer. macs: of one image, without the bias; lost: fraction of the squared weights."""

    method: str
    ranks: tuple[int, ...]
    macs: int
    lost: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """All ranks that `method` may take in a layer: ranks (N, 1 or 2), macs (N,), lost (N,)."""

    method: str
    ranks: np.ndarray
    macs: np.ndarray
    lost: np.ndarray

    def choice(self, index: int) -> Choice:
        """One of them as plain numbers."""
        ranks = tuple(int(rank) for rank in self.ranks[index])
        return Choice(method=self.method, ranks=ranks, macs=int(self.macs[index]), lost=float(self.lost[index]))

    def least_lost(self, macs: float) -> float:
        """What the best one loses that costs at most `macs`; infinity when there is none."""
        return float(self.lost[self.macs <= macs].min(initial=np.inf))


def whole_macs(shape: tuple[int, ...], places: Places) -> int:
    """Multiply-accumulates of the undivided layer with a weight of `shape`, without its bias."""
    return prod(shape) * places.outputs


def curve(method: str, weight: Tensor, places: Places) -> Curve:
    """What each rank costs and loses. For tucker the loss is that of one round, an upper bound."""
    outputs, inputs, height, width = (*weight.shape, 1, 1)[:4]
    if method == "tucker":
        ranks, lost = _tucker_losses(weight)
        core = ranks[:, 0] * ranks[:, 1] * height * width
        macs = inputs * ranks[:, 1] * places.inputs + (core + ranks[:, 0] * outputs) * places.outputs
        return Curve(method=method, ranks=ranks, macs=macs, lost=lost)
    energies = principal(*unfoldings(method, weight))[0].cpu().numpy()
    ranks = np.arange(1, len(energies) + 1)
    if method == "svd":
        each = (inputs + outputs) * places.outputs
    else:
        each = inputs * height * places.between + outputs * width * places.outputs
    return Curve(method=method, ranks=ranks[:, None], macs=ranks * each, lost=_lost(np.cumsum(energies)))


def _lost(kept: np.ndarray) -> np.ndarray:
    """Fractions of the energy lost, from the energies kept, the last of which is all."""
    return np.maximum(0, 1 - kept / kept[-1]) if kept[-1] > 0 else np.zeros_like(kept)


def _tucker_losses(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of ranks (N, 2) and what they lose (N,): the core's energies, summed up along both of its axes."""
    core = tucker_core(weight.detach().double(), *(bases(matrix) for matrix in unfoldings("tucker", weight)))
    kept = core.square().sum((2, 3)).cumsum(0).cumsum(1).cpu().numpy()
    ranks = np.stack(np.indices(kept.shape), -1).reshape(-1, 2) + 1
    area = prod(weight.shape[2:])
    # More outputs than the core's other sides allow, or inputs, would be linear combinations of the rest.
    useful = (ranks[:, 0] <= ranks[:, 1] * area) & (ranks[:, 1] <= ranks[:, 0] * area)
    return ranks[useful], _lost(kept.ravel())[useful]


Rule = Callable[[Curve, Tensor], Choice | None]
"""A curve and the weight that it is of -> the choice, or None when there is nothing to be found in the weight."""


def by_energy(energy: float) -> Rule:
    """The cheapest ranks that keep the fraction `energy` of the squared weights."""

    def rule(curve: Curve, _weight: Tensor) -> Choice:
        enough = np.flatnonzero(curve.lost <= 1 - energy + 1e-9)
        return curve.choice(enough[np.argmin(curve.macs[enough])])

    return rule


def by_number(rank: float) -> Rule:
    """The same rank everywhere, where there are so many; below 1: that fraction of the full rank."""

    def rule(curve: Curve, _weight: Tensor) -> Choice:
        full = curve.ranks.max(0)
        return _nearest(curve, np.minimum(full, rank if rank >= 1 else np.maximum(1, np.round(rank * full))))

    return rule


def by_vbmf(curve: Curve, weight: Tensor) -> Choice | None:
    """As many components as are signal and not noise (`solution.compress.vbmf`)."""
    ranks = [
        rank_by_vbmf(principal(matrix)[0].cpu().numpy(), max(matrix.shape))
        for matrix in unfoldings(curve.method, weight)
    ]
    return _nearest(curve, np.array(ranks)) if min(ranks) else None


def _nearest(curve: Curve, ranks: np.ndarray) -> Choice:
    """The largest of the curve's ranks within `ranks`."""
    within = np.flatnonzero((curve.ranks <= ranks).all(1))
    return curve.choice(within[np.argmax(curve.ranks[within].sum(1))])


def best(curves: list[Curve], weight: Tensor, rule: Rule) -> Choice | None:
    """The choice of the method that loses less at equal MACs: those of the cheaper choice."""
    pairs = [(curve, choice) for curve in curves if (choice := rule(curve, weight)) is not None]
    macs = min((choice.macs for _, choice in pairs), default=0)
    return min(pairs, key=lambda pair: pair[0].least_lost(macs), default=(None, None))[1]


@dataclass(frozen=True, kw_only=True)
class Front:
    """What a layer of `whole` MACs may become: the choices that no other beats in cost and loss, the dearest first."""

    whole: int
    choices: list[Choice]

    def hull(self) -> list[tuple[float, Choice]]:
        """The choices that a falling budget takes, each with what its step loses per MAC saved, which only grows."""
        steps: list[tuple[float, Choice]] = []
        for choice in self.choices:
            while True:
                macs, lost = (steps[-1][1].macs, steps[-1][1].lost) if steps else (self.whole, 0.0)
                slope = (choice.lost - lost) / (macs - choice.macs)
                if not steps or slope > steps[-1][0]:
                    break
                steps.pop()
            steps.append((slope, choice))
        return steps


def front(curves: list[Curve], whole: int) -> Front:
    """What a layer that costs `whole` MACs may become for fewer."""
    macs = np.concatenate([curve.macs for curve in curves])
    lost = np.concatenate([curve.lost for curve in curves])
    owner = np.repeat(np.arange(len(curves)), [len(curve.macs) for curve in curves])
    place = np.concatenate([np.arange(len(curve.macs)) for curve in curves])
    order = np.lexsort((lost, macs))
    order = order[macs[order] < whole]
    least = np.minimum.accumulate(lost[order])
    better = np.flatnonzero(np.diff(least, prepend=np.inf) < 0)[::-1]
    return Front(whole=whole, choices=[curves[owner[i]].choice(place[i]) for i in order[better]])


def within_budget(fronts: Mapping[str, Front], excess: float) -> dict[str, Choice]:
    """Choices that together save at least `excess` MACs, by the steps that lose the least energy per MAC saved.

    On the convex hulls of the layers these greedy steps are the best there is; the last one is then made as small as
    still suffices. `fronts` must be able to save so much.
    """
    steps = [(slope, path, choice) for path, one in fronts.items() for slope, choice in one.hull()]
    taken: dict[str, Choice] = {}
    for _, path, choice in sorted(steps, key=lambda step: step[0]):
        before = taken[path].macs if path in taken else fronts[path].whole
        if before - choice.macs >= excess:
            enough = [one for one in fronts[path].choices if before - one.macs >= excess]
            return taken | {path: min(enough, key=lambda one: one.lost)}
        taken[path] = choice
        excess -= before - choice.macs
    raise InputError(f"the layers cannot save {excess:,.0f} MACs more")
