"""The plan: a plain value that prints, survives JSON and replays without tracing."""

import copy
import json

import pytest
import torch
from toy_nets import toy_net

from solution.compress.channels.step import PruneChannels
from solution.compress.coupling import tracing
from solution.compress.coupling.plan import ChannelPlan
from solution.contracts import InputError, StepContext, plans_of
from solution.models.shufflenet import ShuffleNet

EXAMPLE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
GIVEN = StepContext(example=EXAMPLE)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ShuffleNet(groups=3, units=(2, 1, 1)).build(4).eval()


@pytest.fixture(scope="module")
def plan(net):
    return PruneChannels(ratio=0.5).plan(net, GIVEN)


def test_it_survives_json(plan):
    assert ChannelPlan.from_fields(json.loads(json.dumps(plan.to_fields()))) == plan


def test_it_replays_on_a_fresh_net_without_tracing(net, plan, monkeypatch):
    monkeypatch.setattr(tracing, "Recorder", None)
    cut = plan.apply(net)
    fresh = plan.apply(ShuffleNet(groups=3, units=(2, 1, 1)).build(4)).eval()
    fresh.load_state_dict(cut.state_dict())
    assert torch.equal(fresh(EXAMPLE), cut(EXAMPLE))
    assert plans_of(fresh) == (plan,)


def test_another_architecture_is_refused(plan):
    with pytest.raises(InputError, match=r"made for another net: it cuts .* of shape"):
        plan.apply(ShuffleNet(groups=4, units=(2, 1, 1)).build(4))
    with pytest.raises(InputError, match="has no such tensor"):
        plan.apply(torch.nn.Linear(3, 3))


def test_the_input_is_left_untouched(net, plan):
    before, modules = copy.deepcopy(net.state_dict()), str(net)
    plan.apply(net)
    assert str(net) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_modules_say_their_new_sizes(net, plan):
    cut = plan.apply(net)
    for module in cut.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
        if isinstance(module, torch.nn.BatchNorm2d):
            assert len(module.weight) == len(module.running_mean) == module.num_features


def test_its_table_tells_layers_and_savings(plan):
    table = str(plan)
    assert "features.stage1.unit1.dw_conv2" not in table
    assert "channels  MACs saved" in table
    assert "output: kept whole, it is an output" in table
    before, after = plan.saves["macs"]
    assert f"MACs of layers and products: {before:,} -> {after:,}" in table


def test_cut_layers_keep_whether_they_learn():
    toy = toy_net("residual")
    toy.stem.weight.requires_grad_(False)
    cut = PruneChannels(ratio=0.5)(toy, StepContext(example=EXAMPLE[:, :, :8, :8]))
    assert not cut.stem.weight.requires_grad
    assert cut.two.weight.requires_grad


def test_products_by_subscripts_are_counted_and_go_down():
    class Subscripts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Parameter(torch.randn(6, 16) * 0.3)
            self.second = torch.nn.Parameter(torch.randn(16, 3) * 0.3)

        def forward(self, x):
            return torch.einsum("bh,ho->bo", torch.einsum("bi,ih->bh", x, self.first).relu(), self.second)

    plan = PruneChannels(ratio=0.5).plan(Subscripts(), StepContext(example=torch.randn(4, 6)))
    assert plan.saves["macs"] == (6 * 16 + 16 * 3, 6 * 8 + 8 * 3)
