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
    cut = {}
    for name, places in cuts.items():
        old = tensors[name]
        cut[name] = old.detach()
        for axis, groups, kept in sorted(places, key=lambda place: place[0]):
            cut[name] = sliced(cut[name], axis, groups, torch.tensor(kept, dtype=torch.long, device=old.device))
    replace_tensors(model, cut)


def replace_tensors(model: nn.Module, new: Mapping[str, Tensor]) -> None:
    """Put tensors in the places of parameters and buffers of `model`, under every name that these have."""
    tensors, replaced = named_tensors(model), {}
    for name, tensor in new.items():
        old = tensors[name]
        is_parameter = isinstance(old, nn.Parameter)
        replaced[id(old)] = nn.Parameter(tensor, requires_grad=old.requires_grad) if is_parameter else tensor
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
