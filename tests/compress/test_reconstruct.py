"""What a cut took away is made good where the channels that stay can tell it."""

import pytest
import torch
from torch import nn

from solution.compress.channels.reconstruct import reconstruct
from solution.compress.channels.step import PruneChannels
from solution.contracts import InputError, StepContext

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
GIVEN = StepContext(example=IMAGES[:1], calibration=[(IMAGES[:8], torch.zeros(8)), (IMAGES[8:], torch.zeros(8))])


def redundant_net(make_last):
    """Every second channel of the first layer is a multiple of the one before it."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, padding=1)
    with torch.no_grad():
        first.weight[1::2], first.bias[1::2] = 0.5 * first.weight[::2], 0.5 * first.bias[::2]
    return nn.Sequential(first, nn.ReLU(), *make_last()).eval()


LASTS = {
    "convolution": lambda: [nn.Conv2d(8, 5, 3, stride=2, padding=1)],
    "without bias": lambda: [nn.Conv2d(8, 5, 1, bias=False)],
    "linear": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)],
}


@pytest.mark.parametrize("last", LASTS)
def test_what_can_be_told_from_the_rest_is_recovered(last):
    net = redundant_net(LASTS[last])
    plain, fitted = (PruneChannels(ratio=0.5, reconstruct=fit)(net, GIVEN) for fit in (False, True))
    error = {name: (cut(IMAGES) - net(IMAGES)).abs().max().item() for name, cut in [("no", plain), ("yes", fitted)]}
    assert error["yes"] < 0.02 < error["no"]


def test_layers_behind_a_cut_of_their_own_follow_too():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)
    ).eval()  # fmt: skip
    plain, fitted = (PruneChannels(ratio=0.25, reconstruct=fit)(net, GIVEN) for fit in (False, True))
    errors = [(cut.eval()(IMAGES) - net(IMAGES)).square().mean() for cut in (plain, fitted)]
    assert errors[1] < errors[0]


def test_a_net_that_lost_nothing_is_left_as_it_is():
    net = redundant_net(LASTS["convolution"])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    reconstruct(net, net, {}, [IMAGES])
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_the_mode_of_either_net_stays():
    net = redundant_net(LASTS["convolution"]).train()
    cut = PruneChannels(ratio=0.5, reconstruct=True)(net, GIVEN)
    assert net.training
    assert cut.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in [*net.modules(), *cut.modules()])


def test_it_needs_calibration_batches():
    with pytest.raises(InputError, match="reconstruct needs calibration batches"):
        PruneChannels(ratio=0.5, reconstruct=True)(redundant_net(LASTS["linear"]), StepContext(example=IMAGES))


def test_grouped_convolutions_follow_too():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 16, 3, padding=1)
    with torch.no_grad():
        first.weight[1::2], first.bias[1::2] = 0.5 * first.weight[::2], 0.5 * first.bias[::2]
    net = nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 8, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    plain, fitted = (PruneChannels(ratio=0.5, reconstruct=fit)(net, GIVEN) for fit in (False, True))
    errors = [(cut(IMAGES) - net(IMAGES)).square().mean() for cut in (plain, fitted)]
    assert errors[1] < 0.01 * errors[0]


@pytest.mark.parametrize("seed", range(3))
def test_what_no_fit_can_mend_is_not_made_worse(seed):
    """More weights than samples: a fit to these pictures says nothing of others."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 64, 8), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
    pictures, others = torch.randn(64, 3, 8, 8), torch.randn(256, 3, 8, 8)
    given = StepContext(example=pictures[:1], calibration=[(pictures, torch.zeros(64))])
    plain, fitted = (PruneChannels(ratio=0.5, reconstruct=fit)(net, given) for fit in (False, True))
    errors = [(cut(others) - net(others)).square().mean() for cut in (plain, fitted)]
    assert errors[1] < 1.1 * errors[0]
