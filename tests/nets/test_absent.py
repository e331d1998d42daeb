"""The proof's own run over present numbers: it equals the same function of a tensor that never had the others."""

import pytest
import torch
from torch.nn import functional as F

from solution.compress.coupling.absent import NAN, Present, Steady

KEPT = (0, 2, 3, 5)
FUNCTIONS = {
    "activation": lambda x: F.hardswish(F.gelu(x)),
    "sum": lambda x: x.sum(1, keepdim=True) + x.pow(2).sum((1, 2, 3), keepdim=True),
    "mean": lambda x: x - x.mean(1, keepdim=True) * x.mean(),
    "deviation": lambda x: x / x.std(1, keepdim=True) + x.var((1, 2), unbiased=False, keepdim=True),
    "largest": lambda x: x * x.amax(1, keepdim=True) + x.min(1, keepdim=True)[0],
    "softmax": lambda x: x.softmax(1) + x.log_softmax(1) * x.logsumexp(1, keepdim=True),
    "length": lambda x: F.normalize(x, dim=1) * x.norm(dim=(1, 2), keepdim=True),
    "running": lambda x: x.cumsum(1) + x.abs().cummax(1)[0],
    "top": lambda x: x.topk(3, 1)[0],
    "sorted": lambda x: x.sort(1, descending=True)[0][:, :4],
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "group norm": lambda x: F.group_norm(x, 2),
    "norm of weights": lambda x: F.batch_norm(x.flatten(1).unsqueeze(0), None, None, training=True),
    "rms norm": lambda x: F.rms_norm(x.movedim(1, 3), (x.shape[1],)).movedim(3, 1),
    "gram": lambda x: (x.flatten(2) @ x.flatten(2).mT).softmax(-1) @ x.flatten(2),
    "distances": lambda x: torch.cdist(x.flatten(2).mT, x.flatten(2).mT),
    "cosine": lambda x: F.cosine_similarity(x, x.roll(1, 2), 1),
    "shuffle": lambda x: (x * x.mean((2, 3), keepdim=True)).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "pools": lambda x: F.max_pool2d(x, 2) + F.interpolate(F.avg_pool2d(x, 2, 1), size=2),
    "parts": lambda x: torch.cat([F.relu(part) for part in x.chunk(2, 1)], 1),
}


def absent(x, axis, kept=KEPT):
    gone = torch.tensor(sorted(set(range(x.shape[axis])) - set(kept)))
    return x.index_fill(axis, gone, NAN)


def example():
    return torch.randn(2, 6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def present(x):
    return x[~x.isnan()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    x = example()
    with Present():
        found = FUNCTIONS[name](absent(x, 1))
    wanted = FUNCTIONS[name](x[:, KEPT])
    assert torch.allclose(present(found), wanted.flatten(), atol=1e-12)


CHANCE = {
    "noise": lambda x: x + torch.randn_like(x) + torch.rand(x.shape, dtype=x.dtype) + torch.zeros_like(x).normal_(1, 2),
    "dropout": lambda x: F.dropout2d(F.dropout(x, 0.4, True), 0.4, True),
    "choices": lambda x: torch.bernoulli(x.sigmoid()) + F.gumbel_softmax(x, dim=-1),
    "scale": lambda x: x * torch.empty_like(x).uniform_(0.5, 2),
}


@pytest.mark.parametrize("name", CHANCE)
def test_what_is_drawn_does_not_depend_on_how_many_channels_there_are(name):
    x = example()
    with Present(), Steady():
        found = CHANCE[name](absent(x, 1))
    with Steady():
        assert torch.equal(present(found), CHANCE[name](x[:, KEPT]).flatten())


@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("name", ["convolution", "transposed"])
def test_layers_read_what_is_there_and_lack_the_outputs_that_have_no_weights(name, inputs):
    function, axis = (F.conv2d, 1) if name == "convolution" else (F.conv_transpose2d, 0)
    x, made, bias = example(), (0, 1, 4), torch.randn(5, dtype=torch.float64)
    weight = torch.randn((5, 6, 3, 3) if axis else (6, 5, 3, 3), dtype=torch.float64)
    part, part_bias = absent(weight, 1 - axis, made), absent(bias, 0, made)
    with Present():
        found = function(absent(x, 1), absent(part, axis) if inputs else part, part_bias)
    small = weight.index_select(axis, torch.tensor(KEPT)).index_select(1 - axis, torch.tensor(made))
    assert found[:, made].isfinite().all()
    assert torch.allclose(present(found), function(x[:, KEPT], small, bias[list(made)]).flatten())


def test_a_product_of_unlike_parts_differs():
    x, weight = example().mean((2, 3)), torch.randn(3, 6, dtype=torch.float64)
    with Present():
        found = F.linear(absent(x, 1), absent(weight, 1, (0, 1, 3, 5)))
    assert not torch.allclose(found, x[:, KEPT] @ weight[:, (0, 1, 3, 5)].mT)
