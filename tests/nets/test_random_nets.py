"""Random nets from a grammar: no cut is wrong, and no net brings the analysis down."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nets.checking import IMPORTANCES, RATIOS, randomized, verdict
from nets.grammar import JOINS, MAKERS, SIZE, grown, specs
from nets.known import KNOWN_PIECES

SETTING = st.tuples(st.sampled_from(RATIOS), st.sampled_from(IMPORTANCES))
QUIET = tuple(HealthCheck)


def outcome(pieces, ratio, importance):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = randomized(grown(pieces).eval(), generator)
    return verdict(net, torch.randn(2, 3, SIZE, SIZE, generator=generator), ratio, importance)


def assert_never_wrong(pieces, setting):
    found = outcome(pieces, *setting)
    assert found.kind in ("cut", "refused"), found.detail


@settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
@given(specs(without=KNOWN_PIECES), SETTING)
def test_random_nets(pieces, setting):
    assert_never_wrong(pieces, setting)


@pytest.mark.slow
@settings(max_examples=2000, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
@given(specs(without=KNOWN_PIECES), SETTING)
def test_two_thousand_random_nets(pieces, setting):
    assert_never_wrong(pieces, setting)


def piece_outcomes(kind):
    """Of the piece after a convolution, and of the piece before a shuffle."""
    return {
        outcome(pieces, ratio, IMPORTANCES[number % 2]).kind
        for number in range(6)
        for pieces in ((("conv", number, ()), (kind, number, ())), ((kind, number, ()), ("shuffle", number, ())))
        for ratio in RATIOS
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_every_piece(kind):
    failures = piece_outcomes(kind) & {"wrong", "crash"}
    if kind in KNOWN_PIECES:
        assert failures, f"{kind} is no longer wrong: take it off KNOWN_PIECES"
    else:
        assert not failures


def test_known_pieces_are_pieces():
    assert set(KNOWN_PIECES) <= set(MAKERS)
    assert not set(JOINS) & set(MAKERS)
