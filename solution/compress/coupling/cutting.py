"""Slicing: tensors lose the channels that go, modules learn their new sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from solution.compress.coupling.tracing import named_tensors

Cuts = Mapping[str, Iterable[tuple[int, int, Sequence[int]]]]
"""Tensor name -> ((axis, groups, kept indices), ...); an index of -1 makes a channel of zeros."""


def cut_tensors(model: nn.Module, cuts: Cuts) -> None:
    """Slice parameters and buffers of `model` in place, under every name that they have."""
    tensors = named_tensors(model)
    replaced = {}
    for name, places in cuts.items():
        old = tensors[name]
        new = old.detach()
        for axis, groups, kept in sorted(places, key=lambda place: place[0]):
            new = sliced(new, axis, groups, torch.tensor(kept, dtype=torch.long, device=old.device))
        is_parameter = isinstance(old, nn.Parameter)
        replaced[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                store[name] = replaced.get(id(tensor), tensor)


def sliced(tensor: Tensor, axis: int, groups: int, kept: Tensor) -> Tensor:
    """`kept` indices of `tensor` along `axis`.

    Along axis 1 of a grouped convolution every group has its own inputs: the indices count them one group after
    another, and rows (already cut) belong to groups in order.
    """
    if groups == 1 or axis == 0:
        return _taken(tensor, axis, kept)
    parts = zip(tensor.chunk(groups, 0), kept.view(groups, -1), range(groups), strict=True)
    width = tensor.shape[axis]
    return torch.cat([_taken(rows, axis, torch.where(own < 0, own, own - g * width)) for rows, own, g in parts])


def _taken(tensor: Tensor, axis: int, kept: Tensor) -> Tensor:
    taken = tensor.index_select(axis, kept.clamp(min=0))
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return taken.masked_fill((kept < 0).view(shape), 0)
