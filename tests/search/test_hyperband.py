"""Rungs, brackets, ranks."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from solution.contracts import InputError
from solution.search.hyperband import Hyperband, ranks


def test_rungs_are_a_third_of_the_next_and_later_brackets_start_later():
    rule = Hyperband(total=100, first=4)
    assert [rule.rungs(bracket) for bracket in range(4)] == [(4, 12, 36), (12, 36), (36,), ()]


def test_brackets_cost_about_the_same():
    rule = Hyperband(total=81, first=1)
    brackets = [rule.bracket(number) for number in range(1000)]
    first_rungs = [(*rule.rungs(bracket), 81)[0] for bracket in range(5)]
    counts = np.bincount(brackets, minlength=5)
    assert (np.diff(counts) < 0).all()
    cost = counts * first_rungs * [len(rule.rungs(bracket)) + 1 for bracket in range(5)]
    assert cost.max() / cost.min() < 1.5


def test_trials_that_do_not_train_have_one_bracket_without_rungs():
    assert {Hyperband(total=0).bracket(number) for number in range(20)} == {0}
    assert Hyperband(total=0).rungs(0) == ()


def test_a_third_goes_on_and_at_least_one_at_the_end():
    rule = Hyperband(total=9)
    assert [rule.places(count, complete=False) for count in (1, 2, 3, 8, 9)] == [0, 0, 1, 2, 3]
    assert [rule.places(count, complete=True) for count in (1, 2, 3, 8, 9)] == [1, 1, 1, 3, 3]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=1, max_size=12))
def test_a_rank_counts_those_that_are_better(values):
    def better(one, other):
        return all(a <= b for a, b in zip(one, other, strict=True)) and one != other

    assert ranks(values).tolist() == [sum(better(other, own) for other in values) for own in values]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_with_one_objective_it_is_the_place(values):
    assert ranks([(value,) for value in values]).tolist() == [sum(a < b for a in values) for b in values]


@pytest.mark.parametrize(("wrong", "message"), [({"first": 0}, "1 epoch or more, got 0"), ({"eta": 1}, "at least 2")])
def test_rules_that_make_no_sense(wrong, message):
    with pytest.raises(InputError, match=message):
        Hyperband(total=9, **wrong)
