import numpy as np
import pytest
from hypothesis import given, strategies as st

from solution.contracts import InputError
from solution.data.splits import fold, stratified


def test_golden_split():
    rest, part = stratified(np.array([0] * 6 + [1] * 4), 0.3, seed=0)
    assert (rest, part) == ((0, 1, 4, 5, 6, 8, 9), (2, 3, 7))


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=80).filter(lambda labels: len(labels) > len(set(labels))),
    st.floats(0.05, 0.95),
    st.integers(0, 2**40),
)
def test_every_position_once_and_every_class_by_its_share(labels, share, seed):
    labels = np.array(labels)
    rest, part = stratified(labels, share, seed)
    assert sorted(rest + part) == list(range(len(labels)))
    assert (list(rest), list(part)) == (sorted(rest), sorted(part))
    assert stratified(labels, share, seed) == (rest, part)
    for label in np.unique(labels):
        count, taken = int((labels == label).sum()), int((labels[list(part)] == label).sum())
        assert taken == 0 if count == 1 else abs(taken - count * share) <= 1 and 0 < taken < count


def test_another_seed_gives_another_split():
    labels = np.zeros(100, dtype=np.int64)
    assert stratified(labels, 0.1, 0) != stratified(labels, 0.1, 1)


def test_too_few_pictures_and_impossible_shares_are_refused():
    with pytest.raises(InputError, match="2 pictures are too few to split off 10% of each class"):
        stratified(np.array([0, 1]), 0.1, 0)
    with pytest.raises(InputError, match="share must lie between 0 and 1, got 1"):
        stratified(np.array([0, 0]), 1, 0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 5), st.integers(0, 9))
def test_every_position_is_in_one_fold_and_every_class_in_each(classes, folds, seed):
    labels = np.array(sorted(set(classes)) * folds + classes)
    parts = [fold(labels, folds, number, seed) for number in range(folds)]
    assert sorted(position for _, part in parts for position in part) == list(range(len(labels)))
    for rest, part in parts:
        assert sorted(rest + part) == list(range(len(labels)))
        assert set(labels[list(part)]) == set(labels)
        assert abs(len(part) - len(labels) / folds) < 1


def test_too_few_pictures_for_the_folds_are_refused():
    with pytest.raises(InputError, match="class tin has 2 pictures, fewer than 3 folds"):
        fold(np.array([0, 0, 0, 1, 1]), 3, 0, seed=0, names=("glass", "tin"))
    with pytest.raises(InputError, match="got fold 3 of 3"):
        fold(np.zeros(9), 3, 3, seed=0)
