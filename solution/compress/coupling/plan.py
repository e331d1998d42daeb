"""The decision which channels stay, as a plain value: it prints, survives JSON, and replays without tracing.

`solution.compress.channels.selection` makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from solution.compress.coupling.attributes import set_attributes
from solution.compress.coupling.inputs import unwrapped
from solution.compress.coupling.tracing import named_tensors
from solution.compress.parametrized import computed, materialize_all
from solution.contracts import InputError, Plan, plans_of, remember, spec_of
from solution.copying import copied, forget_computed
from solution.text import columns

_COUNTED = {"macs": "MACs of layers and products", "params": "parameters"}


@dataclass(frozen=True, kw_only=True)
class ChannelPlan(Plan):
    """Which channels stay.

    selections  lists of kept indices, each listed once; -1 is a new channel of zeros
    tensors     parameter or buffer -> ((axis, groups, number of the selection), ...). Along axis 1 of a grouped
                convolution the indices count the inputs of all groups one after another
    shapes      parameter or buffer that is cut -> its shape before
    attributes  module -> {attribute: new value}
    layers      (layer, channels before, channels after, MACs before, MACs after)
    saves       {"macs": (before, after), "params": (before, after)}
    kept        layer that lost nothing -> why
    verified    error of the cut net, against the full one without the channels that go; None when nobody looked
    scales      parameter -> how many times larger its numbers become, where the forward multiplies them by a number
                that it computes from the width
    approximated  operators that mix neighbouring channels, for which the error is what the cut changes in them
    """

    kind: ClassVar[str] = "prune_channels"
    selections: tuple[tuple[int, ...], ...]
    tensors: dict[str, tuple[tuple[int, int, int], ...]]
    shapes: dict[str, tuple[int, ...]]
    attributes: dict[str, dict[str, int | tuple[int, ...]]]
    layers: tuple[tuple[str, int, int, int, int], ...]
    saves: dict[str, tuple[int, int]]
    kept: dict[str, str]
    verified: float | None = None
    scales: dict[str, float] = field(default_factory=dict)
    approximated: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> nn.Module:
        """As every plan's; what is cut is not copied whole first."""
        net = unwrapped(model)
        if any(map(computed, net.modules())):
            return super().apply(model)
        self._check(net)
        cut = forget_computed(copied(net, replaced_tensors(net, self._cuts(), self.scales)))
        set_attributes(cut, self.attributes)
        return remember(cut, spec_of(model), (*plans_of(model), self))

    def cut(self, model: nn.Module) -> nn.Module:
        """Slice the tensors and set the attributes, in place."""
        model = unwrapped(model)
        self._check(materialize_all(model))
        cut_tensors(model, self._cuts(), self.scales)
        set_attributes(model, self.attributes)
        return forget_computed(model)

    def _cuts(self) -> Cuts:
        return {
            name: tuple((axis, groups, self.selections[number]) for axis, groups, number in places)
            for name, places in self.tensors.items()
        }

    def rows(self) -> dict[str, tuple[int, ...]]:
        """Layer -> which of its outputs stay, in order, for every layer that loses some."""
        return {
            name.removesuffix(".weight"): self.selections[number]
            for name, places in self.tensors.items()
            for axis, _, number in places
            if axis == 0 and name.endswith(".weight")
        }

    def _check(self, model: nn.Module) -> None:
        tensors = named_tensors(model)
        for name, shape in self.shapes.items():
            found = tuple(tensors[name].shape) if name in tensors else None
            if found != tuple(shape):
                raise InputError(
                    f"this plan was made for another net: it cuts {name} of shape {tuple(shape)}, and "
                    f"{type(model).__name__} has {'no such tensor' if found is None else f'it in shape {found}'}"
                )
        for path in self.attributes:
            try:
                model.get_submodule(path)
            except AttributeError as error:
                raise InputError(f"this plan was made for another net: there is no module {path!r}") from error

    def __str__(self) -> str:
        rows = [
            (name, f"{before} -> {after}", f"{macs_before - macs_after:,}")
            for name, before, after, macs_before, macs_after in self.layers
        ]
        lines = columns([("layer", "channels", "MACs saved"), *rows])
        lines += [f"{name}: kept whole, {reason}" for name, reason in self.kept.items()]
        lines += [
            f"{_COUNTED.get(name, name)}: {old:,} -> {new:,} ({new / max(old, 1) - 1:+.1%})"
            for name, (old, new) in self.saves.items()
        ]
        if self.scales:
            names = ", ".join(f"{name} by {scale:.3g}" for name, scale in self.scales.items())
            lines.append(f"scaled, for the forward multiplies by numbers that it computes from the width: {names}")
        if self.verified is not None and self.approximated:
            mixing = ", ".join(self.approximated)
            lines.append(f"approximate: {mixing} over other channels, by {self.verified:.0e} of the outputs")
        elif self.verified is not None:
            lines.append(f"verified: outputs agree to {self.verified:.0e} with the full net without these channels")
        return "\n".join(lines)


Cuts = Mapping[str, Iterable[tuple[int, int, Sequence[int]]]]
"""Tensor name -> ((axis, groups, kept indices), ...); an index of -1 makes a channel of zeros."""


def replaced_tensors(model: nn.Module, cuts: Cuts, scales: Mapping[str, float] | None = None) -> dict[int, Any]:
    """{id of a parameter or buffer of `model`: what is left of it, times its scale}."""
    tensors, replaced, scales = named_tensors(model), {}, scales or {}
    for name in {**cuts, **scales}:
        old, places = tensors[name], cuts.get(name, ())
        new = old.detach() * scales[name] if name in scales else old.detach()
        for axis, groups, kept in sorted(places, key=lambda place: place[0]):
            new = sliced(new, axis, groups, torch.tensor(kept, dtype=torch.long, device=old.device))
        is_parameter = isinstance(old, nn.Parameter)
        replaced[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
    return replaced


def cut_tensors(model: nn.Module, cuts: Cuts, scales: Mapping[str, float] | None = None) -> None:
    """Slice and scale parameters and buffers of `model` in place, under every name that they have."""
    replaced = replaced_tensors(model, cuts, scales)
    for module in model.modules():
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                store[name] = replaced.get(id(tensor), tensor)
        if isinstance(module, nn.RNNBase):  # it also keeps its weights in a list
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]


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
    if len(kept) == 0 or int(kept.min()) >= 0:
        return taken
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return taken.masked_fill((kept < 0).view(shape), 0)
