"""Criteria on hand-made weights, and their mean over coupled tensors."""

import pytest
import torch
from toy_nets import toy_net

from solution.compress import importance
from solution.compress.coupling.analysis import Subject, analyse
from solution.contracts import Given, InputError

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
    assert importance.taylor(ROWS, GRADIENTS).tolist() == [1, 0, 0]
    assert importance.fisher(ROWS, GRADIENTS).tolist() == [1, 0, 0]
    assert importance.hessian(ROWS, GRADIENTS).tolist() == [12.5, 0, 1]


def test_mean_activation_is_per_channel():
    activations = torch.stack([torch.full((4, 4), 2.0), torch.full((4, 4), -3.0)])[None]  # (1, 2, 4, 4)
    assert importance.mean_activation(activations, 1).tolist() == [2, 3]


def test_rows_of_a_grouped_input_axis_belong_to_their_group():
    net = toy_net("grouped")
    coupling = analyse(Subject(model=net, example=EXAMPLE)).coupling
    rows = importance.rows_of(net.group.weight, coupling.side("group.weight", 1))
    assert rows.shape == (16, 6 * 9)
    assert torch.equal(rows[5], net.group.weight[6:12, 1].reshape(-1).detach())


@pytest.mark.parametrize("criterion", importance.CRITERIA)
def test_every_criterion_scores_every_component_and_leaves_the_net_alone(criterion):
    net = toy_net("batch norm")
    coupling = analyse(Subject(model=net, example=EXAMPLE)).coupling
    given = Given(example=EXAMPLE, calibration=BATCHES)
    scores = importance.component_scores(net, coupling, criterion, given)
    assert scores.shape == coupling.atom.shape
    assert (scores >= 0).all()
    assert len(set(scores.tolist())) > 1 or criterion == "bn_scale"
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_channel_of_zeros_scores_lowest_whatever_it_is_coupled_to():
    net = toy_net("residual")
    with torch.no_grad():
        net.stem.weight[3] = net.two.weight[3] = 0
        net.two.weight[:, 3] = net.head.weight[:, 3] = 0
    coupling = analyse(Subject(model=net, example=EXAMPLE)).coupling
    scores = importance.component_scores(net, coupling, "l2", Given(example=EXAMPLE))
    assert scores.argmin() == coupling.side("stem.weight", 0).component[3]


def test_what_a_criterion_lacks_is_told():
    net = toy_net("residual")
    coupling = analyse(Subject(model=net, example=EXAMPLE)).coupling
    with pytest.raises(InputError, match="needs calibration batches"):
        importance.component_scores(net, coupling, "taylor", Given(example=EXAMPLE))
    with pytest.raises(InputError, match="needs norm layers"):
        importance.component_scores(net, coupling, "bn_scale", Given(example=EXAMPLE))
