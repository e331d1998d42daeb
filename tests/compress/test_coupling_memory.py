"""The cap on memory: ids that would have to be written out beyond it are kept whole, and the cut stays right."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from solution.compress.channels.step import PruneChannels
from solution.compress.coupling import ids, movement
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.equality import compare, randomize
from solution.contracts import StepContext

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Scattered(nn.Module):
    """Its channels vary along every position after the flip of a transposed view, so ids cannot stay thin."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1)
        self.three, self.head = nn.Conv2d(12, 12, 1), nn.Linear(12 * 64, 5)

    def forward(self, x):
        x = self.two(self.one(x).relu())
        mixed = x.flatten(2).transpose(1, 2).reshape(x.shape)
        return self.head((self.three(x).relu() + mixed).flatten(1))


def kept_with_cap(monkeypatch, cap):
    for module in (ids, movement):
        monkeypatch.setattr(module, "MOST_ELEMENTS", cap)
    torch.manual_seed(0)
    net = randomize(Scattered().eval())
    plan = PruneChannels(ratio=0.5).plan(net, StepContext(example=EXAMPLE))
    found = compare(net, plan, analyze(TraceRequest(model=net, example=EXAMPLE)), EXAMPLE)
    assert found.error < 1e-10 < found.moved
    return plan.kept


def test_beyond_the_cap_channels_are_kept_and_said_so(monkeypatch):
    kept = kept_with_cap(monkeypatch, 100)
    assert "too large to follow" in " ".join(kept.values())
    assert "one" not in kept


def test_within_the_cap_nothing_is_kept_for_its_size(monkeypatch):
    assert "too large" not in " ".join(kept_with_cap(monkeypatch, 1 << 24).values())


PLAN_A_LARGE_IMAGE = """
import resource, timm, torch
from solution import PruneChannels
from solution.contracts import StepContext
net = timm.create_model("vit_tiny_patch16_224", img_size=768, pretrained=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
PruneChannels(ratio=0.5).plan(net, StepContext(example=torch.zeros(1, 3, 768, 768)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
def test_a_transformer_on_a_large_image_stays_under_the_cap():
    done = subprocess.run([sys.executable, "-c", PLAN_A_LARGE_IMAGE], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 2  # GiB beyond the net
