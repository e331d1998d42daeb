"""Nets of users' kinds: a cut is right, or it is refused; the proof knows nothing of the project's analysis."""

import pytest
import torch
from torch import nn

from nets import NETS
from nets.checking import Outcome, Worker, proven
from nets.known import KNOWN
from nets.report import ALL, expected, line, small_share, summary

SAMPLE = (
    "students.MatrixNet",
    "residual.dense",
    "splits.glu",
    "splits.in_place_literal",
    "numbers.root_of_width",
    "rearranged.several_shuffles",
    "rearranged.stacked",
    "numbers.NormOfMap",
    "weights.weight_standardization",
    "segmentation.AttentionUNet",
    "detection.CenterLike",
    "restoration.DenseResidual",
    "generative.Generator",
    "signals.GatedDilated",
    "attention.vit",
    "mixers.pool_former",
    "several.SharedHead",
    "metric.GeneralMean",
    "unusual.Regions",
    "wrapped.brain",
    "attacks.DropsChannels",
    "attacks.Spikes",
)


@pytest.fixture(scope="module")
def worker():
    with Worker() as process:
        yield process


@pytest.mark.parametrize("name", SAMPLE)
def test_a_few_of_every_kind(worker, name):
    found = worker.outcomes(NETS[name], ((0.5, "random"),))
    assert expected(name, found), line(name, found)


@pytest.mark.parametrize("name", ["residual.dense", "splits.glu", "detection.CenterLike", "generative.Generator"])
def test_zeros_in_the_columns_that_read_a_channel_prove_the_same(worker, name):
    assert worker.outcomes(NETS[name], ((0.3, "group_norm"),))[0.3, "group_norm"].plain


def test_known_failures_are_nets_of_the_suite():
    assert set(KNOWN) <= set(NETS)
    assert set(KNOWN.values()) <= {"refused", "wrong", "crash"}


class Parts(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3), nn.Conv2d(width, 4, 3)

    def forward(self, x):
        left, right = self.a(x).chunk(2, 1)
        return self.b(torch.cat([left.sigmoid(), right], 1))


def cut_by_hand(kept):
    torch.manual_seed(0)
    net, small = Parts(8), Parts(len(kept))
    small.load_state_dict(
        {
            "a.weight": net.a.weight[list(kept)],
            "a.bias": net.a.bias[list(kept)],
            "b.weight": net.b.weight[:, list(kept)],
            "b.bias": net.b.bias,
        }
    )
    choice = {"a.weight": ((0, 1, kept),), "a.bias": ((0, 1, kept),), "b.weight": ((1, 1, kept),)}
    return proven(net, small, choice, torch.randn(2, 3, 6, 6))


def test_the_proof_tells_a_right_cut_from_one_whose_channels_change_parts():
    assert cut_by_hand((0, 3, 4, 6)).kind == "cut"
    assert cut_by_hand((0, 1, 3, 6)).kind == "wrong"


def test_a_cut_that_changes_nothing_proves_nothing():
    assert cut_by_hand(tuple(range(8))).kind == "wrong"


def test_the_worst_setting_counts():
    name = next(name for name in NETS if name not in KNOWN)
    assert expected(name, {(0.5, "random"): Outcome("cut")})
    assert not expected(name, {(0.3, "random"): Outcome("cut"), (0.5, "random"): Outcome("wrong")})


@pytest.mark.slow
def test_every_net_at_every_ratio(worker, capsys):
    found = {name: worker.outcomes(net, ALL) for name, net in NETS.items()}
    lines = [line(name, of_net) for name, of_net in found.items()]
    with capsys.disabled():
        print("\n" + "\n".join([*lines, summary(found)]))
    assert [line(name, of_net) for name, of_net in found.items() if not expected(name, of_net)] == []
    assert small_share(found) >= 0.9
