"""Ranges of inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from solution.compress.quantization.forms import DynamicGrid, FixedGrid, quantize_inputs
from solution.compress.quantization.schemes import (
    OBSERVERS,
    Histogram,
    entropy,
    histograms,
    minmax,
    mse,
    percentile,
    ranges,
)


def histogram_of(values, bins=2048):
    counts, edges = np.histogram(values, bins, (min(values.min(), 0), max(values.max(), 0)))
    return Histogram(counts=counts.astype(float), low=edges[0], high=edges[-1])


def rounding_error(values, low, high, bits=8):
    x = torch.tensor(values, dtype=torch.float32)
    return float((FixedGrid(bits, low, high, qat=False)(x) - x).square().mean())


@pytest.fixture(scope="module")
def skewed():
    """After a ReLU: half of the values 0, most below 3, one in ten thousand at 40."""
    chance = np.random.default_rng(0)
    values = np.maximum(chance.normal(size=100_000), 0)
    values[:10] = 40
    return values


def test_minmax_is_all_that_was_seen(skewed):
    assert minmax(histogram_of(skewed), 8) == (0, 40)


def test_percentile_cuts_the_rarest(skewed):
    low, high = percentile(histogram_of(skewed), 8)
    assert low == 0
    assert 3 < high <= 40
    assert percentile(histogram_of(np.concatenate([skewed, skewed[10:]])), 8)[1] < 6


@pytest.mark.parametrize("observer", [mse, entropy])
def test_searching_observers_cut_what_is_not_worth_its_bits(observer, skewed):
    low, high = observer(histogram_of(skewed), 4)
    assert low == 0
    assert 2 < high < 25


def test_mse_errs_least(skewed):
    histogram = histogram_of(skewed)
    errors = {name: rounding_error(skewed, *observer(histogram, 4), 4) for name, observer in OBSERVERS.items()}
    assert min(errors, key=errors.get) == "mse"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=50), st.sampled_from(sorted(OBSERVERS)))
def test_every_range_holds_zero_and_lies_within_what_was_seen(values, observer):
    histogram = histogram_of(np.array(values))
    low, high = OBSERVERS[observer](histogram, 8)
    assert histogram.low - 1e-6 <= low <= 0 <= high <= histogram.high + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 0), st.floats(0.01, 50), st.integers(2, 8))
def test_an_input_grid_has_an_exact_zero_and_errs_by_half_a_step(low, high, bits):
    grid = FixedGrid(bits, low, high, qat=False)
    x = torch.linspace(grid.low, grid.high, 999) * grid.scale
    assert grid(torch.zeros(1)).item() == 0
    assert float((grid(x) - x).abs().max()) <= float(grid.scale) * 0.501
    assert grid.high - grid.low == 2**bits - 1
    assert len(grid(x).unique()) <= 2**bits


def test_a_learning_input_grid_trains_its_step():
    grid = FixedGrid(4, 0.0, 1.0, qat=True)
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    grid(x * 2).sum().backward()
    assert grid.scale.grad.item() > 0  # half of the inputs lie beyond the grid
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50), st.floats(1e-3, 50), st.integers(2, 8))
def test_a_dynamic_grid_fits_each_image_by_itself(middle, spread, bits):
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0)) * spread + middle
    x[1] *= 100
    x[2] = 0
    grid = DynamicGrid(bits)
    for image, made in zip(x, grid(x), strict=True):
        step = float(image.max().clamp(min=0) - image.min().clamp(max=0)) / (2**bits - 1)
        assert float((made - image).abs().max()) <= step * 0.501
        assert len(made.unique()) <= 2**bits
        assert torch.equal(made, grid(image[None])[0])
    assert not list(grid.state_dict())


def test_a_dynamic_grid_keeps_zero_exact_and_lets_gradients_through():
    x = torch.tensor([[-0.3, 0.0, 0.5, 1.0]], requires_grad=True)
    made = DynamicGrid(4)(x)
    assert made[0, 1].item() == 0
    made.sum().backward()
    assert x.grad[0, 1:3].tolist() == [1, 1]
    assert not DynamicGrid(8)(torch.zeros(2, 3, dtype=torch.float16)).any()


def test_histograms_see_what_a_layer_is_given():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    images = [torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    seen = histograms(net, ("0", "2"), images)
    assert seen["0"].counts.sum() == 2 * 2 * 3 * 25
    assert seen["0"].high == pytest.approx(max(float(batch.max()) for batch in images))
    assert seen["2"].low == 0
    assert ranges(net, ("2",), images, "minmax", 8)["2"][1] == pytest.approx(seen["2"].high, rel=1e-5)
    assert not net[0]._forward_pre_hooks


def test_a_hook_rounds_the_input_and_goes_with_copies():
    import copy

    layer = nn.Linear(2, 1, bias=False)
    nn.init.ones_(layer.weight)
    quantize_inputs(layer, FixedGrid(2, 0.0, 3.0, qat=False))
    twin = copy.deepcopy(layer)
    quantize_inputs(layer, FixedGrid(8, 0.0, 255.0, qat=False))
    x = torch.tensor([[0.6, 9.0]])
    assert twin(x).item() == 1 + 3
    assert layer(x).item() == 1 + 9
