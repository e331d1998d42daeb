"""Pruning in stages with training between."""

from dataclasses import dataclass, replace

import pytest
from torch import nn

from solution.compress.channels.gradual import PruneGradually
from solution.compress.channels.step import PruneChannels
from solution.contracts import InputError, Step
from solution.evaluate.cost import macs

SEEN = []


@dataclass(frozen=True, kw_only=True)
class Watch(Step):
    """A step that changes nothing and notes what it was given."""

    def run(self, model, context):
        SEEN.append((macs(model, context.example), context.folder))
        return model

    def cost_only(self, model, context):
        return model


@pytest.fixture
def seen():
    SEEN.clear()
    return SEEN


@pytest.fixture
def plain():
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 3)).eval()


def test_a_budget_is_reached_in_equal_relative_steps(plain, toy, seen):
    cut = PruneGradually(prune=PruneChannels(macs="25%"), between=Watch(), stages=2)(plain, toy)
    full = macs(plain, toy.example)
    assert [figure / full for figure, _ in seen] == [pytest.approx(0.5, abs=0.03)]
    assert 0.24 <= macs(cut, toy.example) / full <= 0.25


def test_a_share_is_reached_and_each_training_keeps_its_state_apart(plain, toy, seen, tmp_path):
    step = PruneGradually(prune=PruneChannels(ratio=0.875), between=Watch(), stages=3)
    assert step(plain, replace(toy, folder=tmp_path))[0].out_channels == 8
    assert [folder for _, folder in seen] == [tmp_path / "stage1", tmp_path / "stage2"]


def test_one_stage_is_refused():
    with pytest.raises(InputError, match=r"stages must be at least 2 .* got 1"):
        PruneGradually(prune=PruneChannels(ratio=0.5), between=Watch(), stages=1)
