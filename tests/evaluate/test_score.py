"""The published rows, the three branches, the cliff."""

import pytest
from hypothesis import given, settings, strategies as st

from solution.contracts import InputError
from solution.evaluate.score import Scorer, Scoring

PUBLISHED = [
    (0.4858, 0.5320, 1_688_940),
    (0.4501, 0.5619, 1_688_940),
    (0.4192, 0.5877, 1_688_940),
    (0.4044, 0.6001, 1_688_940),
    (0.3782, 0.6220, 1_688_940),
    (0.3665, 0.6318, 1_688_940),
    (0.3584, 0.6386, 1_688_940),
    (0.3513, 0.6211, 1_299_789),
    (0.3493, 0.6358, 1_515_459),
    (0.3486, 0.6318, 1_439_700),
    (0.3476, 0.6225, 1_272_450),
    (0.3362, 0.6207, 1_083_210),
    (0.3366, 0.6158, 1_007_460),
    (0.3431, 0.6149, 1_083_210),
    (0.5156, 0.5176, 1_862_490),
    (1.1343, 0.4892, 1_862_490),
]


@pytest.mark.parametrize(("score", "f1", "macs"), PUBLISHED)
def test_published_rows(score, f1, macs):
    assert Scorer()(macs, f1) == pytest.approx(score, abs=1e-4)


def test_the_three_branches_meet_where_they_should():
    scorer = Scorer()
    assert scorer.f1_term(0.49999) == 1
    assert scorer.f1_term(0.5) == pytest.approx(1 - 0.5 / 0.8365)
    assert scorer.f1_term(0.8365) == 0
    assert scorer.f1_term(1.0) == pytest.approx(0.5 * (1 - 1 / 0.8365))
    assert scorer(0, 1.0) < 0


@settings(deadline=None)
@given(macs=st.integers(0, 10**9), less=st.floats(0, 1), more=st.floats(0, 1))
def test_a_better_f1_never_scores_worse(macs, less, more):
    less, more = sorted((less, more))
    scorer: Scoring = Scorer()
    assert scorer(macs, more) <= scorer(macs, less)
    assert scorer(macs + 1, less) >= scorer(macs, less)


@pytest.mark.parametrize(
    ("f1", "warned"), [(0.4799, False), (0.4801, True), (0.5, True), (0.5199, True), (0.5201, False)]
)
def test_a_warning_near_the_cliff(f1, warned):
    warning = Scorer().warning(f1)
    assert (warning is not None) == warned
    assert not warned or f"macro F1 {f1:.4f} is within 0.02 of the cliff at 0.5" in warning


@pytest.mark.parametrize(
    ("macs", "f1", "said"), [(-1, 0.6, "-1"), (float("nan"), 0.6, "nan"), (float("inf"), 0.6, "inf")]
)
def test_macs_that_make_no_sense(macs, f1, said):
    with pytest.raises(InputError, match=f"MACs must be 0 or more, got {said}"):
        Scorer()(macs, f1)


@pytest.mark.parametrize("f1", [-0.1, 1.01, 61.49, float("nan")])
def test_an_f1_that_makes_no_sense(f1):
    with pytest.raises(InputError, match=f"macro F1 must lie in .0, 1., got {f1}: it is a fraction, not percent"):
        Scorer()(1000, f1)


def test_constants_are_checked():
    with pytest.raises(InputError, match="reference_macs must be above 0, got 0"):
        Scorer(reference_macs=0)
    with pytest.raises(InputError, match=r"cliff_f1 <= reference_f1 <= 1 must hold, got 0\.9, 0\.8365"):
        Scorer(cliff_f1=0.9)


def test_another_edition_changes_constants():
    assert Scorer(reference_macs=100, reference_f1=1.0, cliff_f1=0.0)(50, 0.25) == pytest.approx(1.25)
