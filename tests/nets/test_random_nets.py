"""Random nets from a grammar: no cut is wrong, and no net brings the analysis down."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from nets.checking import IMPORTANCES, RATIOS, randomized, verdict
from nets.grammar import JOINS, MAKERS, SIZE, grown, specs

SETTING = st.tuples(st.sampled_from(RATIOS), st.sampled_from(IMPORTANCES))
QUIET = tuple(HealthCheck)


def outcome(pieces, ratio, importance):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = randomized(grown(pieces).eval(), generator).double()  # scaled weights round
    return verdict(net, torch.randn(2, 3, SIZE, SIZE, generator=generator).double(), ratio, importance)


def refusals(number):
    """Cuts `number` random nets, none of them wrong or with a crash; returns how many were refused."""
    refused = []

    @settings(max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
    @given(specs(), SETTING)
    def cut_right_or_refused(pieces, setting):
        found = outcome(pieces, *setting)
        assert found.kind in ("cut", "refused"), found.detail
        refused.extend([found.detail] * (found.kind == "refused"))

    cut_right_or_refused()
    return refused


def test_random_nets():
    assert len(refusals(25)) <= 2


@pytest.mark.slow
def test_two_thousand_random_nets():
    refused = refusals(2000)
    assert len(refused) <= 100, sorted(refused)[::10]


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_every_piece(kind):
    """Each piece after a convolution, and before a shuffle."""
    for number in range(6):
        for pieces in ((("conv", number, ()), (kind, number, ())), ((kind, number, ()), ("shuffle", number, ()))):
            for ratio in RATIOS:
                found = outcome(pieces, ratio, IMPORTANCES[number % 2])
                assert found.kind == "cut" or (kind, found.kind) == ("mirrored", "refused"), found.detail


def test_kinds_have_one_maker_each():
    assert not set(JOINS) & set(MAKERS)
