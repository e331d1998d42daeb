"""Progressive resizing: small images first."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from solution.contracts import InputError, ModelSpec, remember
from solution.models.shufflenet import ShuffleNet
from solution.train.settings import resized, side_at
from solution.train.step import Train
from solution.train.trainer import Trainer


def test_golden_sides():
    assert [side_at(epoch, 16, 40, 64) for epoch in range(16)] == [40, 40, 40, 48, 48, 48, 56, 56] + [64] * 8
    assert [side_at(epoch, 4, 48, 50) for epoch in range(4)] == [48, 48, 50, 50]
    assert side_at(0, 16, 0, 64) == side_at(0, 1, 40, 64) == 64


@given(st.integers(2, 300), st.integers(8, 96), st.integers(0, 128))
def test_sides_grow_in_steps_of_eight_up_to_the_full_one(epochs, first, more):
    sides = [side_at(epoch, epochs, first, first + more) for epoch in range(epochs)]
    assert sides == sorted(sides)
    assert (sides[0], sides[-1]) == (first, first + more)
    assert set(sides[epochs // 2 :]) == {first + more}
    assert all((side - first) % 8 == 0 for side in sides[: epochs // 2])


def test_resized_images_keep_their_mean_and_their_own_size_costs_nothing():
    images = torch.rand(2, 3, 32, 32)
    assert resized(images, 32) is images
    torch.testing.assert_close(resized(images, 16).mean((2, 3)), images.mean((2, 3)), atol=0.02, rtol=0)


def test_a_training_shows_the_net_images_of_the_side_of_the_epoch(small_net, toy):
    step, seen = Train(epochs=4, first_size=16), []
    run = Trainer(small_net, step, toy, step.objective)
    handle = run.net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2]))
    for epoch in range(4):
        run.epoch(epoch, run.batches)
    handle.remove()
    assert seen == [16] * 6 + [24] * 6 + [32] * 12


class Fixed(nn.Module):
    """A net that takes images of 32 pixels alone."""

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(3 * 32 * 32, 3)

    def forward(self, x):
        return self.output(x.flatten(1))


def test_sizes_that_cannot_be_are_refused(small_net, toy):
    with pytest.raises(InputError, match="first_size must be 0 or at least 8, got 4"):
        Train(first_size=4)
    with pytest.raises(InputError, match="first_size must be at most the images' side, 32, got 40"):
        Train(epochs=1, first_size=40)(small_net, toy)
    fixed = remember(Fixed(), ModelSpec(settings=ShuffleNet(), num_classes=3))
    with pytest.raises(InputError, match="Fixed does not run on images of 2 x 3 x 16 x 16"):
        Train(epochs=1, first_size=16)(fixed, toy)
