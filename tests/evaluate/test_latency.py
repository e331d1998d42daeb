"""Latency in turns: who is asked when, what is made of the times, and that nets are left as they were."""

import numpy as np
import torch
from torch import nn

from solution.evaluate import cost
from solution.evaluate.cost import LEAST_ROUNDS, WARM_UP, rewarded_multiple, times_ms


class Noted(nn.Module):
    def __init__(self, name, asked):
        super().__init__()
        self.name, self.asked, self.layer = name, asked, nn.Linear(3, 3)

    def forward(self, x):
        self.asked.append((self.name, self.training, len(x)))
        return self.layer(x)


def test_every_round_asks_every_net_for_one_image_and_the_order_rotates():
    asked = []
    nets = [Noted(name, asked).train(name == "b") for name in "abc"]
    times = times_ms(nets, torch.zeros(4, 3), "cpu", seconds=0)
    assert times.shape == (LEAST_ROUNDS, 3)
    assert (times > 0).all()
    assert {(training, images) for _, training, images in asked} == {(False, 1)}
    rounds = ["".join(name for name, *_ in asked[start : start + 3]) for start in range(0, len(asked), 3)]
    assert rounds[:4] == ["abc", "bca", "cab", "abc"]
    assert len(rounds) == WARM_UP + LEAST_ROUNDS
    assert [net.training for net in nets] == [False, True, False]


def test_the_ratio_is_the_median_of_the_rounds_not_of_the_nets(monkeypatch):
    """The machine grows ten times slower half way: the ratio of medians would not know which half is whose."""
    times = np.array([[1.0, 2.0], [1.0, 2.0], [10.0, 20.0], [11.0, 20.0], [10.0, 20.0]])
    monkeypatch.setattr(cost, "times_ms", lambda nets, example, device: times)
    assert cost.latency_ratio(nn.Identity(), nn.Identity(), torch.zeros(1), "cpu") == 0.5


def test_a_multiple_is_taken_when_it_is_faster_than_its_macs_let_expect():
    macs = [100.0, 50.0, 52.0, 56.0]  # full, as they come, multiples of 8, of 16
    as_expected = np.array([[10.0, 6.0, 6.16, 6.48]] * 5)
    assert rewarded_multiple(as_expected, macs, (1, 8, 16), gain=0.03) == 1
    rewarded = as_expected * [1, 1, 0.8, 0.9]
    assert rewarded_multiple(rewarded, macs, (1, 8, 16), gain=0.03) == 8
    little = as_expected * [1, 1, 0.98, 0.99]
    assert rewarded_multiple(little, macs, (1, 8, 16), gain=0.03) == 1
