"""Feature maps of any net, by the names of the modules that make them."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from solution.contracts import InputError


class FeatureExtractor:
    """While open, keeps what the modules called `names` put out: ``with Taps(net, names) as taps: net(x)``."""

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        self.net, self.names = net, names
        self.maps: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> FeatureExtractor:
        # Registered for one pass only: hooks that stay would be copied along with the net.
        for name in self.names:
            self._handles.append(self.net.get_submodule(name).register_forward_hook(self._keeper(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            if isinstance(out, Tensor):
                self.maps[name] = out

        return keep


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
