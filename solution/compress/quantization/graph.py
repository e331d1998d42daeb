"""Which layer feeds which: the net's forward, recorded symbolically by torch.fx."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import fx, nn

from solution.compress.quantization.layers import CONVOLUTIONS, TRANSPOSED, shared_weights
from solution.contracts import InputError
from solution.evaluate.hooks import counted_class

Chain = tuple[str, str, tuple[int, ...]]
"""Two layers, and the groups of the channel shuffles on the way from one to the other."""

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SHUFFLES = (F.channel_shuffle, torch.channel_shuffle)
_PASSING = (F.relu, torch.relu, torch.relu_, F.relu_, F.leaky_relu, F.dropout, F.max_pool2d, torch.max_pool2d)
_PASSING_METHODS = ("relu", "relu_", "contiguous")
_PASSING_MODULES = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.MaxPool2d)
"""What treats each channel alone and keeps a positive factor on it a factor."""


class _Recorder(fx.Tracer):
    """Takes every kind of batch norm, and convolutions that pad by the size of their input, as one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether `m` is not looked into."""
        leaf = isinstance(m, nn.modules.batchnorm._BatchNorm) or counted_class(m) in convolutions()
        return leaf or super().is_leaf_module(m, module_qualified_name)


def foldable_norms() -> tuple[type[nn.Module], ...]:
    """Classes of norms that are a batch norm, then their children (timm's activation), and nothing else."""
    return (*_NORMS, *_of_timm("BatchNormAct2d"))


def convolutions() -> tuple[type[nn.Module], ...]:
    """Classes that convolve with their weight as it is, after a padding."""
    return (*CONVOLUTIONS, *_of_timm("Conv2dSame"))


def _of_timm(name: str) -> tuple[type[nn.Module], ...]:
    if "timm" not in sys.modules:  # then no module can be of its classes, and its import takes seconds
        return ()
    import timm.layers

    return (getattr(timm.layers, name),)


class Wiring:
    """The recorded forward of a net. `InputError` when its forward cannot be recorded."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.shared = shared_weights(model)
        try:
            # On a copy: a forward may keep what it saw, and here it sees no numbers.
            self.nodes = list(_Recorder().trace(copy.deepcopy(model).eval()).nodes)
        except Exception as error:
            raise InputError(
                f"the forward of {type(model).__name__} cannot be recorded ({error}), so no norm can be folded: "
                "leave out the step fold_norms, or the settings fold_norms and equalize"
            ) from error
        self.calls = Counter(node.target for node in self.nodes if node.op == "call_module")

    def norms(self) -> dict[str, str]:
        """{batch norm: the convolution whose output it alone sees}."""
        pairs, kinds = {}, foldable_norms()
        for node in self.nodes:
            if self._is(node, kinds) and self.modules[node.target].track_running_stats:
                before = node.args[0] if node.args else None
                if self._makes(before) and len(before.users) == 1:
                    pairs[node.target] = before.target
        return pairs

    def chains(self) -> Iterator[Chain]:
        """Pairs of layers of which the second sees the first's channels alone, through nothing but passing steps."""
        for node in self.nodes:
            if self._is(node, (*convolutions(), nn.Linear)) and node.args:
                found = self._source(node.args[0], ())
                if found:
                    yield found[0], node.target, found[1]

    def _source(self, node: object, shuffles: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
        if not isinstance(node, fx.Node) or len(node.users) != 1:
            return None
        if self._is(node, (*convolutions(), nn.Linear)):
            return node.target, shuffles
        if node.target in _SHUFFLES and len(node.args) == 2:
            return self._source(node.args[0], (node.args[1], *shuffles))
        if self._is(node, (nn.ChannelShuffle,)):
            return self._source(node.args[0], (self.modules[node.target].groups, *shuffles))
        method = node.op == "call_method" and node.target in _PASSING_METHODS
        if method or node.target in _PASSING or self._is(node, _PASSING_MODULES):
            return self._source(node.args[0], shuffles)
        return None

    def _is(self, node: fx.Node, kinds: tuple[type[nn.Module], ...]) -> bool:
        """A call, the only one, of a module of one of these very classes that shares its weight with none."""
        once = node.op == "call_module" and self.calls[node.target] == 1 and node.target not in self.shared
        return once and counted_class(self.modules[node.target]) in kinds

    def _makes(self, node: object) -> bool:
        """A convolution whose outputs lie along one axis of its weight."""
        if not isinstance(node, fx.Node):
            return False
        plain = self._is(node, convolutions())
        return plain or (self._is(node, TRANSPOSED) and self.modules[node.target].groups == 1)
