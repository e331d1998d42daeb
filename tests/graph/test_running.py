"""Examples of any form reach a net as it takes them."""

import pytest
import torch
from torch import nn

import solution as fw
from solution.evaluate.cost import macs
from solution.graph import one_for


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.f = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3), nn.Linear(16, 4)

    def forward(self, image, depth, scale=1.0):
        return scale * self.f(torch.cat([self.a(image).relu().mean((2, 3)), self.b(depth).relu().mean((2, 3))], 1))


IMAGE, DEPTH = torch.randn(3, 3, 16, 16), torch.randn(3, 1, 16, 16)
ONE = 14 * 14 * 8 * 9 * (3 + 1) + 14 * 14 * 8 * 2 + 16 * 4 + 4  # what ptflops counts of one sample


@pytest.mark.parametrize("example", [(IMAGE, DEPTH), {"image": IMAGE, "depth": DEPTH}, (IMAGE, DEPTH, 2.0)])
def test_the_first_sample_of_several_inputs(example):
    net = Two().eval()
    assert macs(net, example) == ONE
    for step in (fw.Quantize(), fw.PruneWeights(), fw.Cluster(bits=2), fw.Decompose(rank=1)):
        made = step(net, example)
        args = tuple(example.values()) if isinstance(example, dict) else example
        assert made.eval()(*args).shape == (3, 4)
    with pytest.raises(fw.InputError, match=r"Two does not run on inputs of 1 x 3 x 16 x 16: .*depth"):
        fw.Quantize()(net, (IMAGE,))


def test_inputs_that_are_no_batch_stay_whole():
    nodes, edges = torch.randn(5, 2), torch.zeros(2, 7, dtype=torch.int64)
    one = one_for(nn.Linear(2, 2).double(), {"nodes": nodes, "edges": edges})
    assert one["nodes"].shape == (5, 2)
    assert one["nodes"].dtype is torch.float64
    assert one["edges"].dtype is torch.int64


def test_words_stay_whole_numbers():
    net = nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(32, 3)).eval()
    words = torch.randint(9, (2, 4))
    plan = fw.Quantize().plan(net, words)
    assert list(plan.schemes) == ["2"]
    assert plan.apply(net)(words).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_net_of_codes_alone_gets_its_inputs_in_its_own_precision(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5, bias=False))
    net = net.to(dtype).eval()
    x = torch.randn(2, 3, 8, 8)
    made = fw.Quantize(scheme="int8")(net, x)
    assert not list(made.parameters())
    assert macs(made, x) == macs(net, x)
    torch.testing.assert_close(made(x.to(dtype)), net(x.to(dtype)), rtol=0.05, atol=0.02)


def test_an_empty_example_is_refused():
    for example in (IMAGE[:0], (IMAGE[:0], DEPTH[:0]), ()):
        with pytest.raises(fw.InputError, match="at least one"):
            macs(Two(), example)
