"""How many components of a noisy matrix are signal: empirical variational Bayesian matrix factorization.

The global solution of Nakajima, Sugiyama, Babacan and Tomioka, 2013 ("Global analytic solution of fully-observed
variational Bayesian matrix factorization", JMLR 14): a component is kept when its singular value exceeds a threshold
that depends on the shape of the matrix and on the variance of the noise; that variance is where the free energy is
least, a search in one dimension. The symbols of the paper: L rows, M >= L columns, alpha = L / M.
"""

from __future__ import annotations

import math

import numpy as np

_GRID = 200


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
