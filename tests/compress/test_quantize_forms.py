"""Grids, codes and the forms that train."""

import copy

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from solution.compress.layers import along
from solution.compress.parametrized import own_class, plain
from solution.compress.quantization.forms import (
    Codes,
    Half,
    LearnedStep,
    Signs,
    attach,
    clipped_to_grid,
    finish,
    grid_of,
    make_trainable,
    set_values,
    stored_bytes,
)
from solution.compress.quantization.schemes import SCHEMES, grid_scale, levels, on_grid, scheme_called
from solution.contracts import InputError

INTEGERS = [name for name, scheme in SCHEMES.items() if scheme.dtype is None]
shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))


def random_weight(shape, seed, size=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size


def test_levels_of_the_schemes():
    found = {name: (SCHEMES[name].low, SCHEMES[name].high) for name in ("int8", "int4", "int2", "binary")}
    assert found == {"int8": (-128, 127), "int4": (-8, 7), "int2": (-2, 1), "binary": (-1, 1)}


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"no scheme 'int9'; there are float16, .*binary"):
        scheme_called("int9")


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 999), st.sampled_from([1e-12, 1e-3, 1.0, 1e6]), st.sampled_from(INTEGERS))
def test_codes_give_back_exactly_what_they_stand_for(shape, seed, size, name):
    weight, scheme = random_weight(shape, seed, size), SCHEMES[name]
    form = Codes(scheme)
    codes, scale = form.right_inverse(weight)
    assert (codes.dtype, scale.dtype, scale.shape) == (torch.int8, torch.bfloat16, (shape[0],))
    assert codes.min() >= scheme.low
    assert codes.max() <= scheme.high
    assert torch.equal(form(codes, scale), on_grid(weight, scheme, 0))
    exact = codes.double() * along(scale.double(), 0, 4)
    assert torch.equal(form(codes, scale).double(), exact)


@settings(max_examples=25, deadline=None)
@given(shape=shapes, seed=st.integers(0, 999), bits=st.integers(3, 8))
def test_the_grid_is_at_least_as_good_as_the_one_that_cuts_nothing(shape, seed, bits):
    weight, scheme = random_weight(shape, seed), SCHEMES[f"int{bits}"]
    widest = (weight.flatten(1).abs().amax(1) / scheme.high).bfloat16().float()
    plainly = levels(weight, widest, scheme, 0) * along(widest, 0, 4)
    assert (on_grid(weight, scheme, 0) - weight).norm() <= (plainly - weight).norm() * (1 + 1e-6)


def test_eight_bits_err_by_half_a_step_at_most():
    weight = random_weight((16, 32, 3, 3), 0)
    error = (on_grid(weight, SCHEMES["int8"], 0) - weight).abs().flatten(1)
    assert float((error.square().mean(1).sqrt() / weight.flatten(1).std(1)).max()) < 0.01


def test_a_channel_of_zeros_stays_zero():
    weight = random_weight((3, 4, 1, 1), 0)
    weight[1] = 0
    assert not on_grid(weight, SCHEMES["int4"], 0)[1].any()


def test_zeros_stay_zeros_on_every_grid_but_the_binary_one():
    weight = random_weight((4, 8, 3, 3), 0) * (random_weight((4, 8, 3, 3), 1) > 0)
    for name in set(INTEGERS) - {"binary"}:
        assert not on_grid(weight, SCHEMES[name], 0)[weight == 0].any()


def test_binary_weights_are_signs_times_the_mean_magnitude():
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.5]])
    assert on_grid(weight, SCHEMES["binary"], 0).tolist() == [[2.0, -2.0], [0.25, 0.25]]


def test_gradients_are_those_of_learned_step_sizes():
    """Golden numbers by equation 3 of the paper, step 0.5, levels -2 to 1."""
    x = torch.tensor([-3.0, -0.6, 0.2, 0.3, 4.0], requires_grad=True)
    scale = torch.tensor([0.5], requires_grad=True)
    y = clipped_to_grid(x, scale, -2, 1)
    y.sum().backward()
    assert y.tolist() == [-1.0, -0.5, 0.0, 0.5, 0.5]
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert scale.grad.item() == pytest.approx(-2 + (-1 + 1.2) + (0 - 0.4) + (1 - 0.6) + 1)


@pytest.mark.parametrize("name", ["int8", "int4", "int2", "binary"])
def test_a_trained_grid_freezes_to_the_same_values(name):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, bias=False)
    make_trainable(layer, SCHEMES[name], 0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        (layer(torch.randn(2, 4, 5, 5)) - 1).square().mean().backward()
        optimizer.step()
    trained, grid = layer.weight.detach().clone(), grid_of(layer)
    scale = grid.step(trained)
    plain(layer)
    finish(layer, "weight", Codes(SCHEMES[name], 0, scale))
    assert torch.equal(layer.weight, trained)
    assert len(trained.unique()) <= 6 * 2 ** SCHEMES[name].bits
    assert [buffer.dtype for buffer in layer.buffers()] == [torch.int8, torch.bfloat16]
    assert list(layer.parameters()) == []


def test_the_damped_step_learns_by_the_share_of_the_paper():
    weight = random_weight((2, 8), 0)
    grid = LearnedStep(weight, SCHEMES["int4"])
    grid(weight).sum().backward()
    damped = grid.scale.grad
    scale = grid.scale.detach().clone().requires_grad_(True)
    clipped_to_grid(weight, scale[:, None], -8, 7).sum().backward()
    assert torch.allclose(damped, scale.grad * (8 * 7) ** -0.5)


def test_signs_pass_gradients_straight_through_within_one():
    weight = torch.tensor([[0.5, -0.5, 2.25, -0.75]], requires_grad=True)  # their mean magnitude is 1
    (Signs(SCHEMES["binary"])(weight) * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    mean_part = torch.tensor([1.0, -1.0, 1.0, -1.0]) * (1 - 2 + 3 - 4) / 4
    assert torch.allclose(weight.grad[0], mean_part + torch.tensor([1.0, 2.0, 0.0, 4.0]))


def test_half_precision_is_stored_and_computed_with_in_float32():
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    finish(layer, "weight", Half("float16"))
    assert next(layer.buffers()).dtype is torch.float16
    assert torch.equal(layer.weight, before.half().float())
    set_values(layer, "weight", torch.full((2, 3), 0.1))
    assert torch.equal(layer.weight, torch.full((2, 3), 0.1).half().float())


def test_stored_bytes_count_codes_by_their_bits():
    layer = nn.Linear(8, 2, bias=False)
    assert stored_bytes(layer) == 64
    finish(layer, "weight", Codes(SCHEMES["int4"]))
    assert stored_bytes(layer) == 16 * 4 // 8 + 2 * 2


def test_a_copy_can_be_changed_without_the_original():
    layer = nn.Conv2d(3, 4, 1)
    make_trainable(layer, SCHEMES["int4"], 0)
    twin = copy.deepcopy(layer)
    plain(twin)
    attach(twin, "bias", Half("float16"))
    assert grid_of(layer) is not None
    assert layer.bias.dtype is torch.float32
    assert isinstance(twin._parameters.get("weight"), nn.Parameter)
    own_class(twin)
    assert torch.equal(layer.weight, twin.weight)


def test_the_scale_of_a_transposed_convolution_lies_along_its_outputs():
    weight = random_weight((3, 5, 2, 2), 0)
    assert grid_scale(weight, SCHEMES["int8"], axis=1).shape == (5,)
