"""Copies of nets are deep, keep what is shared, and leave the history of computed values behind."""

import copy
from types import MethodType

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from solution.copying import copied


class Own(nn.Module):
    """Copies itself in its own way."""

    def __init__(self, made_by="hand"):
        super().__init__()
        self.made_by = made_by

    def __deepcopy__(self, memo):
        return Own(made_by="its own way")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.memory = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LSTM(4, 4)
        self.second, self.own, self.normed = nn.Linear(4, 4), Own(), weight_norm(nn.Linear(4, 4))
        self.second.weight = self.first.weight
        self.sizes, self.table, self.again = [1, [2, 3]], {"a": torch.ones(2)}, [self.first]

    def forward(self, x):
        return self.normed(self.memory(self.second(self.norm(self.first(x))))[0])


def test_a_copy_computes_the_same_and_shares_nothing_with_the_original():
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(3, 4)
    other = copied(net)
    assert torch.equal(other(x), net(x))
    pointers = {tensor.data_ptr() for tensor in net.state_dict().values()}
    assert not pointers & {tensor.data_ptr() for tensor in other.state_dict().values()}
    other.sizes[1].append(4)
    other.table["a"].zero_()
    other.first.register_forward_hook(lambda *_: None)
    assert net.sizes == [1, [2, 3]]
    assert net.table["a"].sum() == 2
    assert not net.first._forward_hooks


def test_what_was_shared_is_shared_in_the_copy():
    net = copied(Net())
    assert net.second.weight is net.first.weight
    assert net.again[0] is net.first
    assert net.memory.weight_ih_l0 is net.memory._flat_weights[0]
    assert net.own.made_by == "its own way"


def test_what_the_memo_names_stands_in_the_copy():
    net, weight = Net(), nn.Parameter(torch.zeros(2, 4))
    cut = copied(net, {id(net.first.weight): weight})
    assert cut.first.weight is weight
    assert cut.second.weight is weight
    assert copy.deepcopy(cut).first.weight.shape == (2, 4)


class Remembers(nn.Module):
    """Keeps what its last forward computed, with its history."""

    def __init__(self):
        super().__init__()
        self.layer, self.kept = nn.Linear(4, 4), {}

    def forward(self, x):
        out = self.layer(x)
        self.kept |= {"last": [out, (2 * out, 1)], "itself": self.kept}
        return out


def test_what_a_forward_kept_is_copied_without_its_history():
    net = Remembers()
    out = net(torch.ones(1, 4))
    last, (twice, _) = copied(net).kept["last"]
    assert torch.equal(last, out)
    assert torch.equal(twice, 2 * out)
    assert not last.requires_grad
    assert out.requires_grad


def test_a_hook_that_holds_the_net_holds_its_copy():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.layer = {}, nn.Linear(2, 2)
            self.layer.register_forward_hook(lambda module, inputs, output: self.seen.__setitem__("out", output))

        def forward(self, x):
            self.layer(x)
            return self.seen["out"]

    net = Keeps()
    made = copied(net)
    assert torch.equal(made(torch.ones(1, 2)), net.layer(torch.ones(1, 2)))
    del net.seen["out"]
    made(torch.ones(1, 2))
    assert "out" not in net.seen


def test_a_function_without_the_net_stays_itself():
    calls = []
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda module, inputs, output: calls.append(1))
    copied(net)(torch.ones(1, 2))
    assert calls == [1]


def test_functions_and_methods_that_hold_a_layer_hold_its_copy():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = net[0].forward, net[1].forward

    def one(x, count):
        return first(x) if count == 0 else other(x, count - 1)

    def other(x, count):
        return one(x, count) + 1

    net[0].forward = lambda x: one(x, 2)
    net[1].forward = MethodType(lambda layer, x, *, old=second: old(x) * layer.out_features, net[1])
    made, x = copied(net), torch.randn(3, 2)
    assert torch.equal(made(x), net(x))
    made.double()
    assert made(x.double()).dtype == torch.float64
    assert net(x).dtype == torch.float32
