"""Criteria on hand-made weights, and their mean over coupled tensors."""

import pytest
import torch
import torch.nn.functional as functional
from toy_nets import toy_net

from solution.compress.channels import importance
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.contracts import InputError, StepContext

ROWS = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, -1.0]])
GRADIENTS = torch.tensor([[1.0, -1.0], [5.0, 5.0], [1.0, 1.0]])
EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [(EXAMPLE, torch.tensor([0, 1])), (EXAMPLE + 1, torch.tensor([2, 3]))]


def test_magnitudes():
    assert importance.l1(ROWS).tolist() == [7, 0, 2]
    assert importance.l2(ROWS).tolist() == pytest.approx([5, 0, 2**0.5])


def test_the_geometric_median_scores_lowest():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 9.0]])
    assert importance.geometric_median(rows).argmin() == 0
    assert importance.geometric_median(rows).argmax() == 3


def test_gradient_criteria():
    effects, squares = torch.tensor([-2.0, 0.0]), torch.tensor([6.0, 1.0])
    assert importance.taylor(effects, squares).tolist() == [2, 0]
    assert importance.fisher(effects, squares).tolist() == [4, 0]
    assert importance.hessian(effects, squares).tolist() == [3, 0.5]


def test_taylor_is_the_slope_of_the_loss_as_readers_turn_away_from_a_channel():
    net = toy_net("residual").double()
    images, labels = EXAMPLE.double(), torch.tensor([0, 1])
    coupling = analyze(TraceRequest(model=net, example=images)).coupling
    scores = importance.component_scores(
        net, coupling, "taylor", StepContext(example=images, calibration=[(images, labels)])
    )
    component = coupling.side("stem.weight", 0).component[3]
    loss = functional.cross_entropy(net(images), labels)
    step = 1e-6
    with torch.no_grad():
        for side in coupling.sides:
            if side.role == "in":
                read = torch.from_numpy(side.component == component)
                net.get_parameter(side.tensor)[:, read] *= 1 - step
    slope = (functional.cross_entropy(net(images), labels) - loss).abs() / step
    assert scores[component] == pytest.approx(slope.item(), rel=1e-3)


def test_the_group_norm_counts_makers_readers_and_norms():
    net = toy_net("batch norm")
    coupling = analyze(TraceRequest(model=net, example=EXAMPLE)).coupling
    before = importance.component_scores(net, coupling, "group_norm", StepContext(example=EXAMPLE))
    norm = next(name for name, module in net.named_modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.no_grad():
        net.get_submodule(norm).weight[2] = 100
    after = importance.component_scores(net, coupling, "group_norm", StepContext(example=EXAMPLE))
    component = coupling.side(f"{norm}.weight", 0).component[2]
    assert after[component] == after.max() > before[component]


def test_mean_activation_is_per_channel():
    activations = torch.stack([torch.full((4, 4), 2.0), torch.full((4, 4), -3.0)])[None]  # (1, 2, 4, 4)
    assert importance.mean_activation(activations, 1).tolist() == [2, 3]


def test_rows_of_a_grouped_input_axis_belong_to_their_group():
    net = toy_net("grouped")
    coupling = analyze(TraceRequest(model=net, example=EXAMPLE)).coupling
    rows = importance.rows_of(net.group.weight, coupling.side("group.weight", 1))
    assert rows.shape == (16, 6 * 9)
    assert torch.equal(rows[5], net.group.weight[6:12, 1].reshape(-1).detach())


@pytest.mark.parametrize("criterion", importance.CRITERIA)
def test_every_criterion_scores_every_component_and_leaves_the_net_alone(criterion):
    net = toy_net("batch norm")
    coupling = analyze(TraceRequest(model=net, example=EXAMPLE)).coupling
    context = StepContext(example=EXAMPLE, calibration=BATCHES)
    scores = importance.component_scores(net, coupling, criterion, context)
    assert scores.shape == coupling.atom.shape
    assert (scores >= 0).all()
    assert len(set(scores.tolist())) > 1 or criterion == "bn_scale"
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("criterion", ["l2", "group_norm"])
def test_a_channel_of_zeros_scores_lowest_whatever_it_is_coupled_to(criterion):
    net = toy_net("residual")
    with torch.no_grad():
        net.stem.weight[3] = net.two.weight[3] = 0
        net.two.weight[:, 3] = net.head.weight[:, 3] = 0
    coupling = analyze(TraceRequest(model=net, example=EXAMPLE)).coupling
    scores = importance.component_scores(net, coupling, criterion, StepContext(example=EXAMPLE))
    assert scores.argmin() == coupling.side("stem.weight", 0).component[3]


def test_what_a_criterion_lacks_is_told():
    net = toy_net("residual")
    coupling = analyze(TraceRequest(model=net, example=EXAMPLE)).coupling
    with pytest.raises(InputError, match="needs calibration batches"):
        importance.component_scores(net, coupling, "taylor", StepContext(example=EXAMPLE))
    with pytest.raises(InputError, match="needs norm layers"):
        importance.component_scores(net, coupling, "bn_scale", StepContext(example=EXAMPLE))
