"""Which ranks: what each would cost and lose, and the choice among them by a rule or under a budget for all layers.

`rank_by_vbmf` is the global solution of empirical variational Bayesian matrix factorization (Nakajima, Sugiyama,
Babacan and Tomioka, 2013, JMLR 14): a component is signal when its singular value exceeds a threshold that depends on
the shape of the matrix and on the variance of the noise; that variance is where the free energy is least, a search in
one dimension. The symbols of the paper: L rows, M >= L columns, alpha = L / M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from solution.compress.factors import bases, principal, tucker_core, unfoldings
from solution.contracts import InputError

_GRID = 200
"""Variances of noise that VBMF tries before it searches between the best ones."""


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
    """One way to write a layer. macs: of one image, without the bias; lost: fraction of the squared weights, or of the
    squared outputs where moments of the inputs are given.
    """

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
    return math.prod(shape) * places.outputs


def curve(method: str, weight: Tensor, places: Places) -> Curve:
    """What each rank costs and loses. For tucker the loss is that of one round, an upper bound.

    weight: (G, O, I, kh, kw) of G groups, as it is or `whitened`.
    """
    groups, outputs, inputs, height, width = weight.shape
    if method == "tucker":
        ranks, lost = _tucker_losses(weight)
        core = ranks[:, 0] * ranks[:, 1] * height * width
        macs = groups * (inputs * ranks[:, 1] * places.inputs + (core + ranks[:, 0] * outputs) * places.outputs)
        return Curve(method=method, ranks=ranks, macs=macs, lost=lost)
    energies = principal(*unfoldings(method, weight))[0].sum(0).cpu().numpy()
    ranks = np.arange(1, len(energies) + 1)
    if method == "svd":
        each = groups * (inputs + outputs) * places.outputs
    else:
        each = groups * (inputs * height * places.between + outputs * width * places.outputs)
    return Curve(method=method, ranks=ranks[:, None], macs=ranks * each, lost=_lost(np.cumsum(energies)))


def _lost(kept: np.ndarray) -> np.ndarray:
    """Fractions of the energy lost, from the energies kept, the last of which is all."""
    return np.maximum(0, 1 - kept / kept[-1]) if kept[-1] > 0 else np.zeros_like(kept)


def _tucker_losses(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of ranks (N, 2) and what they lose (N,): the core's energies, summed up along both of its axes."""
    core = tucker_core(weight, *(bases(matrix) for matrix in unfoldings("tucker", weight)))
    kept = core.square().sum((0, 3, 4)).cumsum(0).cumsum(1).cpu().numpy()
    ranks = np.stack(list(np.indices(kept.shape)), -1).reshape(-1, 2) + 1
    area = math.prod(weight.shape[3:])
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
    """As many components as are signal and not noise (`rank_by_vbmf`)."""
    ranks = [
        max(rank_by_vbmf(energies, max(matrix.shape[1:])) for energies in principal(matrix)[0].cpu().numpy())
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


def within_budget(
    fronts: Mapping[str, Front], excess: float, harm: Mapping[str, float] | None = None
) -> dict[str, Choice]:
    """Choices that together save at least `excess` MACs, by the steps that lose the least energy per MAC saved.

    harm  what it costs the net when a layer loses all of its energy, in any unit; None takes all layers for equal

    On the convex hulls of the layers these greedy steps are the best there is; the last one is then made as small as
    still suffices. `fronts` must be able to save so much.
    """
    harm = harm or {}
    steps = [(slope * harm.get(path, 1.0), path, c) for path, one in fronts.items() for slope, c in one.hull()]
    taken: dict[str, Choice] = {}
    for _, path, choice in sorted(steps, key=lambda step: step[0]):
        before = taken[path].macs if path in taken else fronts[path].whole
        if before - choice.macs >= excess:
            enough = [one for one in fronts[path].choices if before - one.macs >= excess]
            return taken | {path: min(enough, key=lambda one: one.lost)}
        taken[path] = choice
        excess -= before - choice.macs
    raise InputError(f"the layers cannot save {excess:,.0f} MACs more")


def rank_by_vbmf(energies: np.ndarray, num_columns: int) -> int:
    """The number of components that are signal, 0 when all looks like noise.

    energies     (L,) squared singular values, descending, none left out
    num_columns  M, the longer side of the matrix
    """
    alpha = len(energies) / num_columns
    edge = least_signal(alpha)
    noise = noise_variance(energies, num_columns, edge)
    return int(np.count_nonzero(energies > num_columns * noise * edge))


def least_signal(alpha: float) -> float:
    """The squared singular value, in units of M times the noise variance, from which a component is kept.

    It is (1 + tau)(1 + alpha / tau), tau being the zero of phi(tau) + phi(tau / alpha) with
    phi(z) = log(z + 1) / z - 1 / 2 (theorem 2 of the paper).
    """
    from scipy.optimize import brentq

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    tau = brentq(lambda t: phi(t) + phi(t / alpha), 1e-3 * alpha, 3.0)
    return (1 + tau) * (1 + alpha / tau)


def noise_variance(energies: np.ndarray, num_columns: int, edge: float) -> float:
    """The variance of the noise at which the free energy is least (corollary 2 of the paper), 0 without any noise."""
    from scipy.optimize import minimize_scalar

    low, high = _bounds(energies, num_columns, edge)
    if low <= 1e-14 * high:
        return low
    scaled = energies / num_columns
    alpha = len(energies) / num_columns
    grid = np.linspace(math.log(low), math.log(high), _GRID)
    best = int(np.argmin([_free_energy(scaled, alpha, edge, point) for point in grid]))
    around = (grid[max(0, best - 1)], grid[min(_GRID - 1, best + 1)])
    if around[0] == around[1]:
        return high
    found = minimize_scalar(lambda point: _free_energy(scaled, alpha, edge, point), bounds=around, method="bounded")
    return math.exp(found.x)


def _bounds(energies: np.ndarray, num_columns: int, edge: float) -> tuple[float, float]:
    """Between which the variance of the noise lies (theorem 3 of the paper)."""
    num_rows = len(energies)
    most_signals = max(0, min(math.ceil(num_rows / (1 + num_rows / num_columns)) - 1, num_rows - 1))
    rest = energies[most_signals:]
    low = max(float(rest[0]) / (num_columns * edge), float(rest.mean()) / num_columns)
    return low, float(energies.mean()) / num_columns


def _free_energy(scaled: np.ndarray, alpha: float, edge: float, log_noise: float) -> float:
    """The free energy but for a constant and a factor. scaled: (L,) squared singular values over M."""
    x = scaled * math.exp(-log_noise)
    signal = x[x > edge]
    gap = signal - (1 + alpha)
    tau = (gap + np.sqrt(np.maximum(gap**2 - 4 * alpha, 0))) / 2
    gained = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return float((x + log_noise).sum() + gained.sum())
