"""What keeps a net's function while its numbers move: folding, equalizing; and what mends it: bias correction."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from solution.compress.fold_norms import Wiring, fold_norms
from solution.compress.layers import find_layers
from solution.compress.quantization.correction import (
    chains_of,
    correct_biases,
    cross_layer_equalize,
    equalize_pair,
    shuffled,
)
from solution.compress.quantization.forms import Codes, finish
from solution.compress.quantization.schemes import SCHEMES
from solution.contracts import InputError
from solution.evaluate.cost import macs


def shaken(net):
    """`net` with norms that are not the identity."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def assert_same_function(net, other, images):
    with torch.no_grad():
        assert torch.allclose(net(images), other(images), rtol=1e-4, atol=1e-5)


def test_folded_norms_keep_the_function_of_a_shufflenet(small_net, toy):
    shaken(small_net)
    pairs = Wiring(small_net).norms()
    assert len(pairs) == sum(isinstance(module, nn.BatchNorm2d) for module in small_net.modules())
    folded = copy.deepcopy(small_net)
    fold_norms(folded, pairs)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert_same_function(small_net, folded, toy.example)
    assert macs(folded, toy.example) < macs(small_net, toy.example)


class Branches(nn.Module):
    """Norms that must not be folded: behind a sum, behind a layer that another also sees, behind a layer used twice."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.alone, self.seen, self.twice, self.late = (nn.BatchNorm2d(3) for _ in range(4))

    def forward(self, x):
        x = self.alone(self.one(x))
        y = self.two(x)
        y = self.seen(y) + y
        y = self.twice(self.three(y)) + self.three(x)
        return self.late(x + y)


def test_only_norms_that_alone_see_their_layer_are_folded():
    net = shaken(Branches())
    assert Wiring(net).norms() == {"alone": "one"}
    folded = copy.deepcopy(net)
    fold_norms(folded, {"alone": "one"})
    assert_same_function(net, folded, torch.randn(2, 3, 4, 4))


def test_a_norm_behind_a_shared_weight_is_not_folded():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    net[2].weight = net[0].weight
    assert Wiring(net).norms() == {}


def test_a_norm_behind_a_transposed_convolution():
    net = shaken(nn.Sequential(nn.ConvTranspose2d(3, 5, 2, 2), nn.BatchNorm2d(5)))
    folded = copy.deepcopy(net)
    fold_norms(folded, Wiring(net).norms())
    assert isinstance(folded[1], nn.Identity)
    assert_same_function(net, folded, torch.randn(2, 3, 4, 4))


def test_a_forward_that_cannot_be_recorded_is_named():
    class Choosy(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(InputError, match=r"forward of Choosy cannot be recorded .*leave out the step fold_norms"):
        Wiring(Choosy())


def test_chains_of_a_shufflenet_cross_its_shuffle(small_net):
    folded = copy.deepcopy(small_net)
    fold_norms(folded, Wiring(folded).norms())
    chains = {chain[:2]: chain[2] for chain in chains_of(Wiring(folded))}
    unit = "features.stage2.unit2"
    assert chains[f"{unit}.compress_conv1", f"{unit}.dw_conv2"] == (3,)
    assert chains[f"{unit}.dw_conv2", f"{unit}.expand_conv3"] == ()
    assert not any(second.endswith("compress_conv1") for _, second in chains if "unit1" not in second)


@pytest.mark.parametrize("groups", [(), (2,), (3, 2)])
def test_shuffled_is_what_the_net_does(groups):
    x = torch.arange(12.0).view(1, 12, 1, 1)
    for count in groups:
        x = F.channel_shuffle(x, count)
    assert x.flatten().tolist() == shuffled(12, groups).tolist()


@pytest.mark.parametrize("groups", [1, 2, 12])
def test_equalizing_a_pair_keeps_its_function_and_matches_its_ranges(groups):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 24, 3, groups=groups)
    with torch.no_grad():
        first.weight.mul_(torch.logspace(-3, 2, 12).view(-1, 1, 1, 1))
        first.weight[4] = 0  # a dead channel has no range to match
    images = torch.randn(2, 3, 8, 8)
    before = second(F.channel_shuffle(F.relu(first(images)), 3))
    with torch.no_grad():
        equalize_pair(first, second, (3,))
    after = second(F.channel_shuffle(F.relu(first(images)), 3))
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-4)
    made = first.weight.flatten(1).abs().amax(1)[shuffled(12, (3,))]
    blocks = second.weight.view(groups, 24 // groups, 12 // groups, -1).transpose(1, 2).flatten(0, 1)
    seen = blocks.flatten(1).abs().amax(1)
    assert torch.allclose(made[made > 0], seen[made > 0], rtol=1e-3)


def test_an_equalized_shufflenet_keeps_its_function(small_net, toy):
    net = shaken(small_net)
    fold_norms(net, Wiring(net).norms())
    other = copy.deepcopy(net)
    cross_layer_equalize(other, tuple(chains_of(Wiring(net))))
    assert_same_function(net, other, toy.example)
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_bias_correction_restores_the_mean_of_every_layer(small_net, toy):
    exact = shaken(small_net)
    fold_norms(exact, Wiring(exact).norms())
    rough = copy.deepcopy(exact)
    paths = [path for path in find_layers(rough, toy.example).paths if rough.get_submodule(path).bias is not None]
    for path in paths:
        finish(rough.get_submodule(path), "weight", Codes(SCHEMES["int3"]))
    images = [batch for batch, _ in toy.calibration]

    def means(net):
        seen = {}

        def see(path):
            def hook(module, _, out):
                seen[path] = out.transpose(0, 1).flatten(1).mean(1) if out.dim() > 2 else out.mean(0)

            return net.get_submodule(path).register_forward_hook(hook)

        handles = [see(path) for path in paths]
        with torch.no_grad():
            net(torch.cat(images))
        for handle in handles:
            handle.remove()
        return torch.cat([seen[path] for path in paths])

    before = (means(rough) - means(exact)).abs().mean()
    correct_biases(rough, exact, {path: path for path in paths}, images)
    assert (means(rough) - means(exact)).abs().mean() < 0.1 * before


def test_bias_correction_goes_into_the_norm_behind_a_layer_without_bias():
    torch.manual_seed(0)
    exact = shaken(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    rough = copy.deepcopy(exact)
    finish(rough[0], "weight", Codes(SCHEMES["int2"]))
    images = torch.rand(8, 3, 6, 6)
    correct_biases(rough, exact, {"0": "1"}, [images[:5], images[5:]])
    assert torch.allclose(rough(images).mean((0, 2, 3)), exact(images).mean((0, 2, 3)), atol=1e-5)
