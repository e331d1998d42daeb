"""Cross-layer equalization (Nagel et al., 2019, arXiv:1906.04721): channels of neighboring layers in one range.

Between two layers with nothing but ReLU a positive factor on a channel can move from the first to the second. The
factor that brings both ranges of a channel to their geometric mean wastes least of either layer's grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from solution.compress.quantization.codes import plain
from solution.compress.quantization.folding import module_at
from solution.compress.quantization.graph import Chain

SWEEPS = 8


def cross_layer_equalize(model: nn.Module, chains: Sequence[Chain]) -> None:
    """Equalize the pairs of `chains`, in place, again and again, as one pair's factor changes its neighbor's."""
    for path in {path for chain in chains for path in chain[:2]}:
        plain(module_at(model, path))
    with torch.no_grad():
        for _ in range(SWEEPS):
            for first, second, shuffles in chains:
                equalize_pair(model.get_submodule(first), model.get_submodule(second), shuffles)


def equalize_pair(first: nn.Module, second: nn.Module, shuffles: Sequence[int]) -> None:
    """Move factors from the outputs of `first` to the inputs of `second`, in place."""
    order = shuffled(len(first.weight), shuffles)
    made = first.weight.flatten(1).abs().amax(1)  # (C,)
    seen = torch.empty_like(made)
    seen[order] = inputs_first(second).abs().amax(1)
    alive = (made > 0) & (seen > 0)
    factor = torch.where(alive, (seen / made).sqrt(), 1.0)
    first.weight.mul_(factor.view(-1, *[1] * (first.weight.dim() - 1)))
    if first.bias is not None:
        first.bias.mul_(factor)
    multiply_inputs(second, 1 / factor[order])


def shuffled(channels: int, groups: Sequence[int]) -> Tensor:
    """(C,) which channel stands at each place after channel shuffles with these groups."""
    order = torch.arange(channels)
    for count in groups:
        order = order.view(count, -1).t().flatten()
    return order


def inputs_first(layer: nn.Module) -> Tensor:
    """A layer's weights by input channel, (inputs, weights that it meets); inputs of groups one group after another."""
    groups = getattr(layer, "groups", 1)
    blocks = layer.weight.view(groups, -1, *layer.weight.shape[1:])  # (G, O/G, I/G, ...)
    return blocks.transpose(1, 2).flatten(0, 1).flatten(1)


def multiply_inputs(layer: nn.Module, factor: Tensor) -> None:
    """Multiply the weights that meet input channel i by ``factor[i]``, in place."""
    groups = getattr(layer, "groups", 1)
    blocks = layer.weight.view(groups, -1, *layer.weight.shape[1:])
    blocks.mul_(factor.view(groups, 1, -1, *[1] * (layer.weight.dim() - 2)))
