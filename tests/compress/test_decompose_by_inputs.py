"""Decomposition by what layers see: what outputs lose decides, not what weights lose."""

import dataclasses

import pytest
import torch
from torch import nn

import solution as fw
from solution.compress.factors import factored, factors_of, grouped, patches, product, whitened
from solution.evaluate.cost import macs


def correlated(*shape, seed=0):
    """Maps whose channels depend on each other and are not alike."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    mix = torch.randn(shape[1], shape[1], generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return torch.einsum("ij,bj...->bi...", mix * torch.logspace(0, -2, shape[1]).double(), x)


def moments(layer, x):
    seen = patches(layer, x)
    return torch.einsum("ngd,nge->gde", seen, seen) / len(seen)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "method", "ranks"), [(1, "svd", (2,)), (3, "spatial", (2,)), (3, "tucker", (2, 2))])
def test_fitted_factors_lose_less_of_the_outputs_and_as_much_as_their_moments_say(groups, kernel, method, ranks):
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, kernel, stride=2, padding=kernel // 2, groups=groups, padding_mode="reflect").double()
    layer.requires_grad_(False)
    x, weight = correlated(8, 16, 9, 9), grouped(layer)
    exact, squares = layer(x), moments(layer, x)
    torch.testing.assert_close(
        torch.einsum("god,ngd->ngo", weight.flatten(2), patches(layer, x)).flatten(1) + layer.bias,
        exact.permute(0, 2, 3, 1).flatten(0, 2),
    )
    lost = []
    for given in (None, squares):
        factors = factors_of(method, weight, ranks, given)
        error = (factored(layer, method, ranks, factors)(x) - exact).square().sum(1).mean()
        missing = weight.flatten(2) - product(factors)
        assert float(torch.einsum("god,gde,goe->", missing, squares, missing)) == pytest.approx(float(error), rel=1e-6)
        lost.append(float(error))
    assert lost[1] < 0.8 * lost[0]


def test_svd_by_moments_is_the_best_there_is():
    torch.manual_seed(0)
    layer, x = nn.Linear(12, 9).double().requires_grad_(False), correlated(200, 12)
    weight, squares = grouped(layer), moments(layer, x)
    outputs = x @ layer.weight.T
    best = (torch.linalg.svdvals(outputs)[3:] ** 2).sum() / len(x)
    made = factored(layer, "svd", (3,), factors_of("svd", weight, (3,), squares))
    assert float((made(x) - layer(x)).square().sum(1).mean()) == pytest.approx(float(best), rel=1e-4)
    energies = torch.linalg.svdvals(whitened("svd", weight, squares)[0, :, :, 0, 0]) ** 2
    assert float(energies[3:].sum()) == pytest.approx(float(best), rel=1e-4)


class Normed(nn.Module):
    """Two convolutions with norms, the second grouped, on images of which three channels matter."""

    def __init__(self):
        super().__init__()
        self.first, self.one = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.second, self.two = nn.Conv2d(24, 24, 1, groups=2, bias=False), nn.BatchNorm2d(24)
        self.last = nn.Linear(24, 5)

    def forward(self, x):
        x = self.one(self.first(x)).relu()
        return self.last(self.two(self.second(x)).relu().mean((2, 3)))


def normed_net():
    torch.manual_seed(0)
    net = Normed()
    x = correlated(64, 16, 8, 8).float()
    for _ in range(60):
        net(x)  # its norms have seen such images
    return net.eval()


def context_of(**settings):
    batches = [(correlated(16, 16, 8, 8, seed=seed).float(), torch.zeros(16).long()) for seed in range(4)]
    return fw.StepContext(example=batches[0][0][:2], calibration=batches, log=lambda line: None, **settings)


def change(made, net, context):
    x = torch.cat([images for images, _ in context.calibration])
    with torch.no_grad():
        return float((made.eval()(x) - net(x)).norm() / net(x).norm())


@pytest.mark.parametrize("share", ["80%", "60%", "40%"])
def test_outputs_change_less_where_images_are_given(share):
    net, context = normed_net(), context_of()
    step = fw.Decompose(macs=share)
    plain = step(net, dataclasses.replace(context, calibration=None))
    made = step(net, context)
    assert change(made, net, context) < 0.7 * change(plain, net, context)
    assert macs(made, context.example) <= float(share[:-1]) / 100 * macs(net, context.example)


def test_a_plan_made_with_images_replays_without():
    net, context = normed_net(), context_of()
    plan = fw.Decompose(macs="60%").plan(net, context)
    assert {row["method"] for row in plan.layers.values()} <= {"svd", "spatial", "tucker"}
    made = fw.Decompose(macs="60%")(net, context)
    fresh = plan.apply(normed_net())
    fresh.load_state_dict(made.state_dict())
    x = context.example
    assert torch.equal(fresh.eval()(x), made.eval()(x))


class Sides(nn.Module):
    """Two equal layers, one of which hardly matters for the outputs."""

    def __init__(self):
        super().__init__()
        self.loud, self.soft, self.last = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.soft.load_state_dict(self.loud.state_dict())

    def forward(self, x):
        return self.last(self.loud(x).tanh() + 0.01 * self.soft(x).tanh())


def test_what_matters_little_pays():
    torch.manual_seed(0)
    net, x = Sides().eval(), torch.randn(64, 32)
    context = fw.StepContext(example=x[:2], calibration=[(x, torch.zeros(64))], log=lambda line: None)
    plan = fw.Decompose(macs="80%", protect=("last",)).plan(net, context)
    assert list(plan.layers) == ["soft"]


class Rare(nn.Module):
    """The outputs read directions alone in which the inputs hardly vary."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(8, 8, bias=False), nn.Linear(8, 3, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.diag(torch.tensor([1.0] * 5 + [1.1] * 3)))
            self.last.weight.copy_(torch.eye(8)[5:])

    def forward(self, x):
        return self.last(self.layer(x))


def test_norms_keep_their_statistics_where_images_do_not_fit_them():
    lines: list[str] = []
    context = context_of()
    batches = [(5 * images + 3, labels) for images, labels in context.calibration]
    context = dataclasses.replace(context, calibration=batches, log=lines.append)
    net, step = normed_net(), fw.Decompose(macs="80%")
    made, plan = step(net, context), step.plan(net, context)
    assert change(made, net, context) <= change(plan.apply(net), net, context)
    assert "measured again" not in lines[-1]


def test_the_nearest_factors_stay_where_fitted_ones_lose_more():
    torch.manual_seed(0)
    x = torch.randn(64, 8) * torch.tensor([9.0] * 3 + [0.1] * 2 + [1.0] * 3)
    lines: list[str] = []
    context = fw.StepContext(example=x[:2], calibration=[(x, torch.zeros(64))], log=lines.append)
    net = Rare().eval()
    made = fw.Decompose(rank=3, layers=("layer",))(net, context)
    torch.testing.assert_close(made(x), net(x))
    assert lines[-1:] == ["the nearest factors: the outputs for calibration images change by 0.00 %"]


def test_very_wide_layers_are_split_by_their_weights():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(3072, 16)).eval(), torch.randn(8, 3, 32, 32)
    context = fw.StepContext(example=x[:2], calibration=[(x, torch.zeros(8))], log=lambda line: None)
    made = fw.Decompose(rank=4)(net, context)
    torch.testing.assert_close(made(x), fw.Decompose(rank=4)(net, x[:2])(x))
