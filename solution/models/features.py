"""Feature maps of any net, by the names of the modules that make them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from solution.contracts import InputError
from solution.graph.observe import modules_at, observe


class FeatureExtractor(contextlib.AbstractContextManager["FeatureExtractor"]):
    """While open, keeps what the modules called `names` put out, by name in `maps`.

    with FeatureExtractor(net, names) as features: net(x)
    """

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        self.maps: dict[str, Tensor] = {}
        self._hooks = observe(modules_at(net, names), after=self._keep)

    def __enter__(self) -> FeatureExtractor:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            self.maps[name] = output


@torch.no_grad()
def scales(net: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """The module that makes the feature map of each size, finest first, with that map's shape (B, F, H, W).

    Of several it is the outermost, and of those the last: the first convolutions of a downsampling block still have
    the old size. Maps of one pixel are left out: they are pooled. `InputError` when the net makes no map.
    """
    names = tuple(name for name, _ in net.named_modules() if name)
    training = net.training
    with FeatureExtractor(net.eval(), names) as features:
        net(example)
    net.train(training)
    last: dict[tuple[int, ...], str] = {}
    for name, value in features.maps.items():
        if value.ndim == 4 and value.shape[2] * value.shape[3] > 1:
            size = tuple(value.shape[2:])
            if size not in last or name.count(".") <= last[size].count("."):
                last[size] = name
    if not last:
        raise InputError(
            f"{type(net).__name__} makes no feature maps (B, F, H, W): use logits alone and no auxiliary heads"
        )
    return {name: tuple(features.maps[name].shape) for name in last.values()}


def classifier_path(net: nn.Module) -> str:
    """The name of the classifier: the last linear map, an `nn.Linear` or an ungrouped 1x1 `nn.Conv2d`."""
    for name, module in reversed(list(net.named_modules())):
        if isinstance(module, nn.Linear) or _is_pointwise(module):
            return name
    raise InputError(f"{type(net).__name__} has no classifier: no nn.Linear and no 1x1 nn.Conv2d")


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


def replace(net: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` in place of the one called `path`."""
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)
