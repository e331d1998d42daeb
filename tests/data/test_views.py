import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from solution.data.views import EpochSampler, as_batch

LABELS = np.array([0] * 90 + [1] * 9 + [2])


def _draws(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_depends_on_seed_and_epoch_alone():
    first, second = EpochSampler(LABELS, 8, seed=3), EpochSampler(LABELS, 8, seed=3)
    _draws(second, 0)
    assert _draws(first, 5) == _draws(second, 5) == _draws(first, 5)
    assert _draws(first, 5) != _draws(first, 6)
    assert _draws(first, 5) != _draws(EpochSampler(LABELS, 8, seed=4), 5)
    assert {epoch for batch in _draws(first, 5) for epoch, _ in batch} == {5}


@given(st.integers(1, 60), st.integers(1, 70))
def test_shuffling_takes_each_picture_once_in_full_batches(count, batch_size):
    sampler = EpochSampler(np.zeros(count, dtype=np.int64), batch_size, seed=0)
    batches = _draws(sampler, 0)
    drawn = [index for batch in batches for _, index in batch]
    assert len(batches) == len(sampler)
    assert len(set(drawn)) == len(drawn) <= count
    if count >= batch_size:
        assert {len(batch) for batch in batches} == {batch_size}
        assert count - len(drawn) < batch_size
    else:
        assert [len(batch) for batch in batches] == [count]


def test_balanced_draws_every_class_as_often_as_any_other():
    sampler = EpochSampler(LABELS, 10, seed=0, sampling="balanced")
    drawn = np.bincount(
        [LABELS[index] for epoch in range(60) for batch in _draws(sampler, epoch) for _, index in batch]
    )
    assert drawn.sum() == 6000
    assert np.abs(drawn / 6000 - 1 / 3).max() < 0.03


def test_a_batch_is_normalized_and_lies_channels_last():
    images = np.array([[[[0, 51, 255]]]], dtype=np.uint8)  # (1, 1, 1, 3)
    batch = as_batch(images, ((0.5, 0.2, 0.0), (0.5, 0.1, 2.0)))
    assert batch.flatten().tolist() == pytest.approx([-1.0, 0.0, 0.5], abs=1e-6)
    batch = as_batch(np.zeros((2, 4, 5, 3), np.uint8), ((0.0,) * 3, (1.0,) * 3))
    assert batch.shape == (2, 3, 4, 5)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_pictures_that_may_not_be_written_become_batches_without_a_warning():
    image = np.full((1, 4, 4, 3), 255, dtype=np.uint8)
    image.flags.writeable = False
    with warnings.catch_warnings(action="error"):
        batch = as_batch(image, ((0.5,) * 3, (0.5,) * 3))
    assert (batch == 1).all()
