"""What makes up for rounding: ranges of neighboring layers brought together, mean errors moved into biases.

Both after Nagel et al., 2019 (arXiv:1906.04721). Cross-layer equalization: between two layers with nothing but ReLU a
positive factor on a channel can move from the first to the second; the factor that brings both ranges of a channel to
their geometric mean wastes least of either layer's grid. Bias correction: rounding shifts the mean of a layer's
outputs; the shift, measured on calibration images, goes into the layer's bias or the running mean of the norm after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from solution.compress.fold_norms import Wiring
from solution.compress.layers import convolutions, module_at
from solution.compress.parametrized import plain
from solution.compress.quantization.forms import set_values
from solution.graph import images_for, modules_at, observe

Chain = tuple[str, str, tuple[int, ...]]
"""Two layers, and the groups of the channel shuffles on the way from one to the other."""

SWEEPS = 8
_SHUFFLES = (F.channel_shuffle, torch.channel_shuffle)
_PASSING = (F.relu, torch.relu, torch.relu_, F.relu_, F.leaky_relu, F.dropout, F.max_pool2d, torch.max_pool2d)
_PASSING_METHODS = ("relu", "relu_", "contiguous")
_PASSING_MODULES = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.MaxPool2d)
"""What treats each channel alone and keeps a positive factor on it a factor."""


def chains_of(wiring: Wiring) -> Iterator[Chain]:
    """Pairs of layers of which the second sees the first's channels alone, through nothing but passing steps."""
    layers = (*convolutions(), nn.Linear)

    def source(node: object, shuffles: tuple[Any, ...]) -> tuple[str, tuple[int, ...]] | None:
        if not isinstance(node, fx.Node) or len(node.users) != 1:
            return None
        if wiring.calls_only(node, layers):
            return str(node.target), shuffles
        if node.target in _SHUFFLES and len(node.args) == 2:
            return source(node.args[0], (node.args[1], *shuffles))
        if wiring.calls_only(node, (nn.ChannelShuffle,)):
            return source(node.args[0], (wiring.modules[node.target].groups, *shuffles))
        method = node.op == "call_method" and node.target in _PASSING_METHODS
        if method or node.target in _PASSING or wiring.calls_only(node, _PASSING_MODULES):
            return source(node.args[0], shuffles)
        return None

    for node in wiring.nodes:
        if wiring.calls_only(node, layers) and node.args and (start := source(node.args[0], ())):
            yield start[0], node.target, start[1]


def cross_layer_equalize(model: nn.Module, chains: Sequence[Chain]) -> None:
    """Equalize the pairs of `chains`, in place, again and again, as one pair's factor changes its neighbor's."""
    for path in {path for chain in chains for path in chain[:2]}:
        plain(module_at(model, path))
    with torch.no_grad():
        for _ in range(SWEEPS):
            for first, second, shuffles in chains:
                equalize_pair(model.get_submodule(first), model.get_submodule(second), shuffles)


def equalize_pair(first: Any, second: Any, shuffles: Sequence[int]) -> None:
    """Move factors from the outputs of `first` to the inputs of `second`, in place."""
    order = shuffled(len(first.weight), shuffles)
    made = first.weight.flatten(1).abs().amax(1)  # (C,)
    groups = getattr(second, "groups", 1)
    blocks = second.weight.view(groups, -1, *second.weight.shape[1:])  # (G, O/G, I/G, ...)
    seen = torch.empty_like(made)
    seen[order] = blocks.transpose(1, 2).flatten(0, 1).flatten(1).abs().amax(1)
    alive = (made > 0) & (seen > 0)
    factor = torch.where(alive, (seen / made).sqrt(), 1.0)
    first.weight.mul_(factor.view(-1, *[1] * (first.weight.dim() - 1)))
    if first.bias is not None:
        first.bias.mul_(factor)
    blocks.mul_((1 / factor[order]).view(groups, 1, -1, *[1] * (second.weight.dim() - 2)))


def shuffled(channels: int, groups: Sequence[int]) -> Tensor:
    """(C,) which channel stands at each place after channel shuffles with these groups."""
    order = torch.arange(channels)
    for count in groups:
        order = order.view(count, -1).t().flatten()
    return order


def correct_biases(model: nn.Module, exact: nn.Module, places: Mapping[str, str], batches: Iterable[Tensor]) -> None:
    """Correct `model`, in place, so that its layers' outputs have on average the means that they have in `exact`.

    places  {layer: its own path, when it has a bias, else the path of the norm after it}
    """
    shift: dict[str, Tensor | float] = dict.fromkeys(places, 0.0)
    batches = list(batches)
    total = sum(len(images) for images in batches)
    for images in batches:
        for path, by in _shifts(model.eval(), exact.eval(), tuple(places), images).items():
            shift[path] = shift[path] + by * len(images) / total
    for path, place in places.items():
        module: Any = model.get_submodule(place)
        if place == path:
            set_values(module, "bias", module.bias.detach() - shift[path])
        else:
            module.running_mean.add_(shift[path])


def _shifts(model: nn.Module, exact: nn.Module, paths: tuple[str, ...], images: Tensor) -> dict[str, Tensor]:
    """{layer: (C,) how far the mean of its outputs lies above the exact one, once all before it are corrected}."""
    wanted: dict[str, list[Tensor]] = {path: [] for path in paths}
    shifts: dict[str, list[Tensor]] = {path: [] for path in paths}

    def note(path: str, module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        wanted[path].append(_channel_means(output, module))

    def mend(path: str, module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        shift = _channel_means(output, module) - wanted[path][len(shifts[path])]
        shifts[path].append(shift)
        axis = output.dim() - 1 if isinstance(module, nn.Linear) else 1
        return output - shift.to(output.dtype).view([-1 if dim == axis else 1 for dim in range(output.dim())])

    for net, see in ((exact, note), (model, mend)):
        with observe(modules_at(net, paths), after=see), torch.no_grad():
            net(images_for(net, images))
    return {path: torch.stack(shifts[path]).mean(0) for path in paths}


def _channel_means(output: Tensor, module: nn.Module) -> Tensor:
    """(C,) the mean of each output channel."""
    axis = output.dim() - 1 if isinstance(module, nn.Linear) else 1
    return output.float().movedim(axis, 0).flatten(1).mean(1)
