"""Weights that are computed before each call: every step works on their values, says so, and what is left trains."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import solution as fw
from solution.compress.parametrized import computed, keep_zeros, materialize, materialized
from solution.evaluate.cost import sparsity

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*spectral_norm:FutureWarning")


class Equalized:
    """Equalized learning rate by a hook: the weight is the stored one, scaled by its fan-in (Karras et al., 2018)."""

    def __init__(self, name):
        self.name = name

    def __call__(self, module, inputs):
        stored = getattr(module, f"{self.name}_orig")
        setattr(module, self.name, stored * math.sqrt(2 / stored[0].numel()))


def equalized(layer):
    stored = layer._parameters.pop("weight")
    layer.register_parameter("weight_orig", nn.Parameter(stored.detach()))
    layer.weight = stored.detach()
    hook = Equalized("weight")
    layer.register_forward_pre_hook(hook)
    hook(layer, ())
    return layer


def masked(layer):
    return prune.l1_unstructured(layer, "weight", 0.3)


WAYS = {
    "weight norm by hooks": (weight_norm, "WeightNorm"),
    "weight norm": (parametrizations.weight_norm, "WeightNorm"),
    "spectral norm by hooks": (spectral_norm, "SpectralNorm"),
    "spectral norm": (parametrizations.spectral_norm, "SpectralNorm"),
    "masks": (masked, "PruningMask"),
    "equalized": (equalized, "Equalized"),
}
STEPS = {
    "prune_weights": fw.PruneWeights(sparsity=0.6),
    "cluster": fw.Cluster(bits=2),
    "quantize": fw.Quantize(scheme="int4"),
    "quantize, folded": fw.Quantize(scheme="int8", fold_norms=True, cross_layer_equalize=True),
    "qat": fw.Quantize(scheme="int4", qat=True),
    "decompose": fw.Decompose(rank=0.4),
    "fold_norms": fw.FoldNorms(),
}


def net_with(way):
    torch.manual_seed(0)
    layers = (way(nn.Conv2d(3, 16, 3)), way(nn.Conv2d(16, 16, 3, stride=2)))
    norms = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
    for norm in norms:
        for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            tensor.uniform_(0.5, 1.5)
    return nn.Sequential(
        *(layers[0], norms[0], nn.ReLU(), layers[1], norms[1], nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    ).eval()


X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("way", WAYS)
def test_plain_values_take_the_place_and_train(way):
    net = net_with(WAYS[way][0])
    expected = net(X).detach()
    assert computed(net[0]) == {"weight": (WAYS[way][1],)}
    plain = materialized(net)
    torch.testing.assert_close(plain(X), expected, rtol=1e-4, atol=1e-5)
    assert set(plain.state_dict()) == set(net_with(lambda layer: layer).state_dict())
    assert not any(computed(module) for module in plain.modules())
    plain(X).sum().backward()
    assert all(layer.weight.grad is not None for layer in (plain[0], plain[3]))
    torch.testing.assert_close(net(X), expected)  # the first net is as it was
    assert computed(net[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_does_with_computed_weights_what_it_does_with_their_values(step, way):
    wrap, name = WAYS[way]
    net, lines = net_with(wrap), []
    made = STEPS[step](net, fw.StepContext(example=X, log=lines.append)).eval()
    expected = STEPS[step](materialized(net), X).eval()
    torch.testing.assert_close(made(X), expected(X), rtol=1e-3, atol=1e-4)
    kept = (way == "masks" and step != "decompose") or (step == "qat" and way in ("weight norm", "spectral norm"))
    assert lines == [] if kept else (len(lines) == 1 and f"{name} of " in lines[0] and ".weight" in lines[0])


@pytest.mark.parametrize("way", WAYS)
def test_the_plan_replays_on_a_fresh_net(way):
    plan = fw.PruneWeights(sparsity=0.6).plan(net_with(WAYS[way][0]), X)
    made = plan.apply(net_with(WAYS[way][0])).eval()
    assert sparsity(made) == pytest.approx(plan.total[1], abs=1e-9)
    assert plan.total[1] == pytest.approx(60, abs=0.5)


def test_values_are_those_of_the_sources_not_of_the_last_call():
    """A state that is loaded changes the sources; the weight that a hook made stays until the next call."""
    net, other = net_with(weight_norm), net_with(weight_norm)
    for tensor in other.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1.5)
    net.load_state_dict(other.state_dict())
    torch.testing.assert_close(materialized(net)(X), net(X), rtol=1e-4, atol=1e-5)


def test_what_was_frozen_stays_frozen():
    for wrap, _ in WAYS.values():
        layer = wrap(nn.Conv2d(3, 4, 3)).requires_grad_(False)
        assert not materialize(layer).weight.requires_grad


def test_masks_stay_masks_in_training():
    net = net_with(masked)
    made = fw.PruneWeights(sparsity=0.6)(net, X)
    zeros = made[0].weight == 0
    assert bool(zeros[net[0].weight == 0].all())
    optimizer = torch.optim.SGD(made.parameters(), lr=0.5, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        made(X).square().sum().backward()
        optimizer.step()
    assert torch.equal(made[0].weight == 0, zeros)


def test_masks_stay_before_a_grid_that_trains():
    made = fw.Quantize(scheme="int4", qat=True)(net_with(masked), X)
    assert computed(made[0])["weight"] == ("KeepZeros", "LearnedStep")


def test_zeros_of_a_plain_weight_can_be_kept():
    layer = nn.Linear(4, 4)
    layer.weight.data[0] = 0
    keep_zeros(layer)
    layer(torch.ones(1, 4)).sum().backward()
    assert bool((layer.parametrizations.weight.original.grad[0] == 0).all())
    assert bool((layer.parametrizations.weight.original.grad[1:] != 0).all())


def test_two_computations_of_one_layer():
    layer = weight_norm(nn.Conv2d(3, 4, 3))
    prune.l1_unstructured(layer, "weight_v", 0.5)
    expected = layer(X).detach()
    assert set(computed(layer)) == {"weight", "weight_v"}
    torch.testing.assert_close(materialize(layer)(X), expected)
    assert set(layer.state_dict()) == {"weight", "bias"}


class Standardized(nn.Conv2d):
    """Weight standardization: another weight is computed inside the forward (Qiao et al., 2019)."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


def test_what_a_forward_computes_is_kept_and_said():
    net, lines = net_with(lambda layer: layer), []
    net[0] = Standardized(3, 16, 3)
    context = fw.StepContext(example=X, log=lines.append)
    made = fw.PruneWeights(sparsity=0.5)(net, context)
    assert type(made[0]).__bases__[0] is Standardized
    assert lines == ["0: Standardized may compute another weight in its forward; the zeros are those of the stored one"]
    assert str(fw.FoldNorms().plan(net, X)).count("1: left as it is, 0 is a Standardized, which may compute") == 1
    small = fw.Quantize()(net, context)
    torch.testing.assert_close(small(X), net(X), rtol=0.05, atol=0.05)
    assert "0: left as it is, it is a Standardized" in str(fw.Decompose(rank=0.3).plan(net, X))
