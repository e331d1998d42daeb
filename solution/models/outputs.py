"""What any net puts in and out: logits out of dictionaries and tuples, channels in another order, how many outputs,
feature maps by the names of the modules that make them, and its classifier.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from solution.contracts import InputError
from solution.graph import as_judged, modules_at, observe
from solution.input_spec import InputSpec


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


_NAMES = ("logits", "out", "output", "pred", "prediction", "scores", "y")
SIZE = 224
"""Side of the input of a net when nothing names it."""
_SIDES = (28, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 299, 384)


def logits_of(output: Any) -> Tensor:
    """The logits in what a net returns: a tensor, the first tensor of a tuple, or a dictionary's entry "logits" (or
    "out", ...; else its only tensor). `InputError` that names what there is instead."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        tensors = {name: value for name, value in output.items() if isinstance(value, Tensor)}
        named = [tensors[name] for name in _NAMES if name in tensors]
        if named or len(tensors) == 1:
            return named[0] if named else next(iter(tensors.values()))
        found = f"a dictionary of {', '.join(map(str, output)) or 'nothing'}"
    elif isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    elif isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    else:
        found = f"a {type(output).__name__}"
    raise InputError(f'the net returns {found}, in which no logits are found: return a tensor, or {{"logits": tensor}}')


class Logits(nn.Module):
    """A net that returns more than logits, as one that returns logits alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        return logits_of(self.net(images))


def as_logits(net: nn.Module, channels: int, size: int) -> nn.Module:
    """`net` itself when it maps images (B, channels, size, size) to a tensor, or cannot take them; else in `Logits`."""
    try:
        with as_judged(net):
            output = net(torch.zeros(2, channels, size, size))
        if not isinstance(output, Tensor):
            logits_of(output)
            return Logits(net)
    except InputError:
        raise
    except Exception:  # whoever counts its outputs next raises it
        return net
    return net


def with_red_first(net: nn.Module, channels: int, size: int) -> nn.Module:
    """`net`, made for BGR, with the inputs of its first convolutions turned in place, so that it takes RGB.

    `InputError` when something else than a convolution sees the pictures first.
    """
    images = torch.randn(1, channels, size, size)
    first: list[Any] = []

    def note(path: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].data_ptr() == images.data_ptr():
            first.append(module)

    leaves = {path: module for path, module in net.named_modules() if not list(module.children())}
    with observe(leaves, before=note), as_judged(net):
        net(images)
    if channels != 3 or not first or not all(isinstance(module, nn.Conv2d) and module.groups == 1 for module in first):
        raise InputError(
            "BGR is for nets of three channels that begin with a convolution: turn the pictures in its forward"
        )
    for module in first:
        with torch.no_grad():
            module.weight.copy_(module.weight.flip(1))
    return net


def count_outputs(net: nn.Module, header: InputSpec, name: str, how: str = "--size {}", usual: int = 0) -> int:
    """Outputs of the net for one picture. `InputError` that names a side, or a number of channels, that it can take
    when it takes not the header's; `usual` is a side that is likely.
    """
    channels, size = len(header.mean), header.size

    def takes(channels: int, side: int) -> bool:
        try:
            return bool(answer_of(net, channels, side).shape)
        except Exception:  # whatever a net makes of pictures that it does not take
            return False

    try:
        return answer_of(net, channels, size).shape[1]
    except Exception as error:
        reason = str(error).partition("\n")[0]
        nearest = sorted(_SIDES, key=lambda side: (side < size, abs(side - size)))
        for side in (side for side in (usual, *nearest) if side not in (0, size)):
            if takes(channels, side):
                raise InputError(
                    f"{name} takes no pictures of {size} px ({reason}); it takes {side}: {how.format(side)}"
                ) from error
        for other, numbers in ((3, "0.5,0.5,0.5"), (1, "0.5")):
            if other != channels and any(takes(other, side) for side in (size, usual or size, SIZE)):
                raise InputError(
                    f"{name} takes pictures of {other} channel(s), and mean and std are of {channels}: give one number "
                    f"of each channel, such as --mean {numbers} --std {numbers}"
                ) from error
        raise InputError(f"{name} takes no pictures (B, {channels}, S, S): {type(error).__name__}: {reason}") from error


def answer_of(net: nn.Module, channels: int, side: int) -> Tensor:
    """What `net` gives for two pictures. `InputError` unless that is a tensor (B, outputs, ...)."""
    with as_judged(net):
        outputs = net(torch.zeros(2, channels, side, side))
    if not isinstance(outputs, Tensor) or outputs.dim() < 2:
        raise InputError(f"it gives {type(outputs).__name__}, not logits (B, classes)")
    return outputs
