"""Golden values, limits, and labels against their one-hot probabilities."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from solution.contracts import InputError
from solution.losses.classification import (
    EFFECTIVE_BETA,
    as_probabilities,
    class_weights,
    cross_entropy,
    focal,
    soft_macro_f1,
)


def batch(seed=0, images=8, classes=5, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(images, classes, generator=generator)
    return logits, torch.randint(classes, (images,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])])
def test_cross_entropy_is_that_of_pytorch(smoothing, weights):
    logits, labels = batch()
    expected = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    assert cross_entropy(logits, labels, smoothing=smoothing, weights=weights) == pytest.approx(float(expected))


def test_focal_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]])  # probabilities 3/4 and 1/4
    expected = (1 / 4) ** 2 * math.log(4 / 3)
    assert float(focal(logits, torch.tensor([0]), gamma=2.0)) == pytest.approx(expected)
    half = (expected + (3 / 4) ** 2 * math.log(4)) / 2
    assert float(focal(logits, torch.tensor([[0.5, 0.5]]), gamma=2.0)) == pytest.approx(half)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])])
def test_focal_without_gamma_is_cross_entropy(weights):
    logits, labels = batch()
    plain = cross_entropy(logits, labels, smoothing=0.1, weights=weights)
    assert focal(logits, labels, gamma=0.0, smoothing=0.1, weights=weights) == pytest.approx(float(plain))


def test_soft_macro_f1_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])  # p = (3/4, 1/4), (1/2, 1/2); labels 0 and 1
    first, second = 2 * 0.75 / (1.25 + 1), 2 * 0.5 / (0.75 + 1)
    assert float(soft_macro_f1(logits, torch.tensor([0, 1]))) == pytest.approx(1 - (first + second) / 2)


def test_soft_macro_f1_of_a_perfect_prediction_is_0_and_of_a_wrong_one_1():
    labels = torch.tensor([0, 2, 2, 4])  # classes 1 and 3 do not occur
    sure = 100 * F.one_hot(labels, 5).float()
    assert float(soft_macro_f1(sure, labels)) == pytest.approx(0, abs=1e-6)
    assert float(soft_macro_f1(sure, (labels + 1) % 5)) == pytest.approx(1, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 12), classes=st.integers(2, 9), gamma=st.floats(0, 5))
def test_one_hot_probabilities_are_labels(seed, images, classes, gamma):
    logits, labels = batch(seed, images, classes)
    one_hot, weights = F.one_hot(labels, classes).float(), torch.linspace(0.1, 2, classes)
    for loss in (
        lambda targets: cross_entropy(logits, targets, smoothing=0.1),
        lambda targets: cross_entropy(logits, targets, smoothing=0.1, weights=weights),
        lambda targets: focal(logits, targets, gamma=gamma, weights=weights),
        lambda targets: soft_macro_f1(logits, targets),
    ):
        assert float(loss(labels)) == pytest.approx(float(loss(one_hot)), rel=1e-4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
def test_the_scale_of_class_weights_has_no_effect(seed, factor):
    logits, labels = batch(seed)
    weights = torch.linspace(0.1, 2, 5)
    for loss in (cross_entropy, focal):
        once, scaled = loss(logits, labels, weights=weights), loss(logits, labels, weights=factor * weights)
        assert float(once) == pytest.approx(float(scaled), rel=1e-4)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gradients_stay_finite(size, gamma):
    logits, labels = batch()
    for targets in (labels, F.one_hot(labels, 5).float().lerp(torch.full((8, 5), 0.2), 0.3)):
        x = (size * logits).requires_grad_()
        loss = (
            cross_entropy(x, targets, weights=torch.linspace(0.1, 2, 5)) / 1e30 + focal(x, targets, gamma=gamma) / 1e30
        )
        (loss + soft_macro_f1(x, targets)).backward()
        assert torch.isfinite(x.grad).all()


def test_balanced_weights_are_those_of_scikit_learn():
    expected = [60 / (3 * 10), 60 / (3 * 20), 60 / (3 * 30)]
    assert class_weights((10, 20, 30), "balanced").tolist() == pytest.approx(expected)


def test_effective_weights_follow_the_paper():
    weights = class_weights((10, 1000), "effective")
    effective = [(1 - EFFECTIVE_BETA**n) / (1 - EFFECTIVE_BETA) for n in (10, 1000)]
    assert float(weights[0] / weights[1]) == pytest.approx(effective[1] / effective[0], rel=1e-5)
    assert float(weights[0] / weights[1]) < 100  # gentler than balanced


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 10**5), min_size=1, max_size=9),
    scheme=st.sampled_from(("none", "balanced", "effective")),
)
def test_an_image_weighs_1_on_average(counts, scheme):
    weights = class_weights(counts, scheme)
    mean = sum(w * n for w, n in zip(weights.tolist(), counts, strict=True)) / sum(counts)
    assert mean == pytest.approx(1, rel=1e-4)
    if scheme == "none":
        assert weights.tolist() == [1.0] * len(counts)


def test_bad_counts_and_schemes_are_named():
    with pytest.raises(InputError, match=r"got counts \(3, 0, 5\)"):
        class_weights((3, 0, 5), "balanced")
    with pytest.raises(InputError, match="none, balanced, effective, got 'inverse'"):
        class_weights((3, 5), "inverse")


@pytest.mark.parametrize(
    "targets",
    [torch.zeros(8), torch.zeros(7, dtype=torch.int64), torch.zeros(8, 4), torch.zeros(8, dtype=torch.int32)],
)
def test_targets_that_do_not_fit_are_named(targets):
    logits, _ = batch()
    for use in (as_probabilities, lambda t, x: cross_entropy(x, t), lambda t, x: focal(x, t)):
        with pytest.raises(InputError, match=r"logits \(8, 5\)"):
            use(targets, logits)
