"""The decision which channels stay, as a plain value: it prints, survives JSON, and replays without tracing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from solution.compress.coupling.attributes import set_attributes
from solution.compress.coupling.cutting import cut_tensors
from solution.compress.coupling.tracing import named_tensors
from solution.compress.parametrized import materialize_all
from solution.contracts import InputError, Plan


@dataclass(frozen=True, kw_only=True)
class ChannelPlan(Plan):
    """Which channels stay.

    selections  lists of kept indices, each told once; -1 is a new channel of zeros
    tensors     parameter or buffer -> ((axis, groups, number of the selection), ...). Along axis 1 of a grouped
                convolution the indices count the inputs of all groups one after another
    shapes      parameter or buffer that is cut -> its shape before
    attributes  module -> {attribute: new value}
    layers      (layer, channels before, channels after, MACs before, MACs after)
    saves       {"macs": (before, after), "params": (before, after)}
    kept        layer that lost nothing -> why
    """

    kind: ClassVar[str] = "prune_channels"
    selections: tuple[tuple[int, ...], ...]
    tensors: dict[str, tuple[tuple[int, int, int], ...]]
    shapes: dict[str, tuple[int, ...]]
    attributes: dict[str, dict[str, int | tuple[int, ...]]]
    layers: tuple[tuple[str, int, int, int, int], ...]
    saves: dict[str, tuple[int, int]]
    kept: dict[str, str]

    def cut(self, model: nn.Module) -> nn.Module:
        """Slice the tensors and set the attributes, in place."""
        self._check(materialize_all(model))
        cuts = {
            name: tuple((axis, groups, self.selections[number]) for axis, groups, number in places)
            for name, places in self.tensors.items()
        }
        cut_tensors(model, cuts)
        set_attributes(model, self.attributes)
        return model

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
        width = max(len("layer"), *(len(row[0]) for row in self.layers))
        lines = [f"{'layer':<{width}}  {'channels':>14}  MACs saved"]
        lines += [
            f"{name:<{width}}  {f'{before} -> {after}':>14}  {macs_before - macs_after:,}"
            for name, before, after, macs_before, macs_after in self.layers
        ]
        lines += [f"{name}: kept whole, {reason}" for name, reason in self.kept.items()]
        lines += [f"{name}: {old:,} -> {new:,} ({new / old - 1:+.1%})" for name, (old, new) in self.saves.items()]
        return "\n".join(lines)
