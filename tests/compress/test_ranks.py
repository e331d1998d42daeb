"""The analytic solution on matrices whose rank and noise are known."""

import numpy as np
import pytest

from solution.compress.ranks import least_signal, noise_variance, rank_by_vbmf


def energies_of(matrix):
    return np.linalg.svd(matrix, compute_uv=False) ** 2


def planted(rows, columns, rank, noise, seed=0):
    """A matrix (rows, columns) of this rank, singular values about sqrt(rows * columns), plus Gaussian noise."""
    chance = np.random.default_rng(seed)
    signal = chance.normal(size=(rows, rank)) @ chance.normal(size=(rank, columns))
    return signal + noise * chance.normal(size=(rows, columns))


@pytest.mark.parametrize("shape", [(40, 100), (64, 64), (30, 500)])
@pytest.mark.parametrize("rank", [1, 5, 12])
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_a_planted_rank_is_found(shape, rank, noise):
    assert rank_by_vbmf(energies_of(planted(*shape, rank, noise)), max(shape)) == rank


@pytest.mark.parametrize("shape", [(40, 100), (64, 64), (30, 500)])
def test_noise_alone_has_no_rank(shape):
    assert rank_by_vbmf(energies_of(planted(*shape, 1, 0.0) * 0 + planted(*shape, 0, 1.0)), max(shape)) == 0


def test_the_variance_of_the_noise_is_found():
    found = noise_variance(energies_of(planted(60, 200, 6, 0.3)), 200, least_signal(0.3))
    assert found == pytest.approx(0.09, rel=0.05)


def test_the_threshold_is_that_of_the_paper():
    tau = 2.51286241725  # log(tau + 1) = tau / 2
    assert least_signal(1.0) == pytest.approx((1 + tau) * (1 + 1 / tau))
    for alpha in (0.01, 0.1, 0.5):  # the paper's approximation of tau
        tau = 2.5129 * alpha**0.5
        assert least_signal(alpha) == pytest.approx((1 + tau) * (1 + alpha / tau), rel=0.03)


def test_it_does_not_depend_on_the_scale():
    energies = energies_of(planted(40, 100, 5, 0.3))
    assert rank_by_vbmf(1e-8 * energies, 100) == rank_by_vbmf(1e8 * energies, 100) == 5


def test_without_noise_the_rank_is_the_number_of_components():
    assert rank_by_vbmf(np.array([4.0, 1.0, 0.0, 0.0]), 10) == 2
    assert rank_by_vbmf(np.zeros(4), 10) == 0
    assert rank_by_vbmf(np.array([3.0]), 10) == 0  # a single component cannot be told from noise
