"""The decision which channels stay, as a plain value: it prints, survives JSON, and replays without tracing.

`written_plan` chooses the channels for a fit and writes them down in the order in which they arrive in the cut net.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from solution.compress.coupling.analysis import Analysis
from solution.compress.coupling.attributes import set_attributes
from solution.compress.coupling.components import Coupling, Side, made_alike
from solution.compress.coupling.fitting import SPARE, Fit
from solution.compress.coupling.inputs import unwrapped
from solution.compress.coupling.sizes import classes_of
from solution.compress.coupling.tracing import layer_macs, named_tensors
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
    verified    error of the cut net, against the full one without the channels that go; None when nobody looked
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

    def cut(self, model: nn.Module) -> nn.Module:
        """Slice the tensors and set the attributes, in place."""
        model = unwrapped(model)
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
        lines += [
            f"{name}: {old:,} -> {new:,} ({new / max(old, 1) - 1:+.1%})" for name, (old, new) in self.saves.items()
        ]
        lines += [] if self.verified is None else [f"verified: {self.verified:.0e}"]
        return "\n".join(lines)


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
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return taken.masked_fill((kept < 0).view(shape), 0)


def choose(full: Coupling, skeleton: Coupling, replaces: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(components of the skeleton,) the original component in the place of each: the best-scored of its class.

    They keep their order. A spare place gets the best unused channel that the same layers make; nothing will read it.
    replaces: the class that each comes from, or SPARE; score: (components of the full model,), higher stays.
    """
    of = classes_of(full).of
    chosen = np.empty(len(replaces), dtype=np.int64)
    for number in np.unique(replaces[replaces != SPARE]).tolist():
        places = np.flatnonzero(replaces == number)
        members = np.flatnonzero(of == number)
        best = members[np.argsort(-score[members], kind="stable")[: len(places)]]
        chosen[places] = np.sort(best)
    _lend(full, skeleton, replaces == SPARE, score, chosen)
    return chosen


def _lend(full: Coupling, skeleton: Coupling, spare: np.ndarray, score: np.ndarray, chosen: np.ndarray) -> None:
    """Choose for the spare places."""
    if spare.any():
        donors, places = made_alike(full), made_alike(skeleton)
        for place in np.flatnonzero(spare).tolist():
            members = np.flatnonzero(donors == places[place])
            unused = members[~np.isin(members, chosen[~spare])]
            pool = unused if len(unused) else members
            if not len(pool):
                raise InputError("the wiring of the cut net has channels that the full net has not")
            chosen[place] = pool[np.argmax(score[pool])]


def selections(
    full: Coupling, skeleton: Coupling, chosen: np.ndarray, spare: np.ndarray
) -> dict[tuple[str, int], np.ndarray]:
    """(Tensor, axis) -> kept indices in the order in which channels arrive there, for every axis that changes.

    Where a spare channel (components of the skeleton,) is read the index is -1.
    """
    found = {}
    for side in full.sides:
        small = skeleton.side(*side.key)
        if small is None or (small.role == "output" and spare[small.component].any()):
            raise InputError(f"channels no longer lie along axis {side.axis} of {side.tensor} after the cut")
        kept = _kept_positions(side, small, chosen, spare)
        if not np.array_equal(kept, np.arange(len(side.component))):
            found[side.key] = kept
            if side.role == "output":
                raise InputError(f"the cut would change the order of {side.tensor}")
    return found


def _kept_positions(side: Side, small: Side, chosen: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Positions of `side`, in the order of `small`: the nth of a component in a group is its nth there."""
    wanted = chosen[small.component]
    kept = _matched((side.component, side.group), (wanted, small.group))
    lent = spare[small.component]
    if not lent.any():
        return kept
    if side.role == "in":
        return np.where(lent, -1, kept)
    anywhere = np.zeros_like(side.group), np.zeros_like(small.group)
    loose = _matched((side.component, anywhere[0]), (np.where(lent, wanted, -1), anywhere[1]))
    return np.where(lent, loose, kept)


Kinds = tuple[np.ndarray, np.ndarray]
"""(positions,) component, and (positions,) group."""


def _matched(there: Kinds, here: Kinds) -> np.ndarray:
    """For each position here the one there that is the nth of the same component and group too, or -1."""
    component, group = np.concatenate([np.stack(there), np.stack(here)], 1)
    number = (component + 1) * (group.max() + 1) + group
    theirs, ours = number[: len(there[0])], number[len(there[0]) :]
    rank_there, rank_here = _rank(theirs), _rank(ours)
    most = max(len(theirs), len(ours)) + 1
    place = dict(zip((theirs * most + rank_there).tolist(), range(len(theirs)), strict=True))
    return np.array([place.get(key, -1) for key in (ours * most + rank_here).tolist()], dtype=np.int64)


def _rank(number: np.ndarray) -> np.ndarray:
    """(N,) how many equal ones come before each."""
    order = np.argsort(number, kind="stable")
    ordered = number[order]
    start = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    rank = np.empty(len(number), dtype=np.int64)
    rank[order] = np.arange(len(number)) - np.repeat(start, np.diff(start, append=len(number)))
    return rank


def written_plan(full: Analysis, fitted: Fit, score: np.ndarray) -> ChannelPlan:
    """The plan that keeps the channels of highest `score` (components,) at the sizes of `fitted`."""
    skeleton = fitted.skeleton.coupling
    chosen = choose(full.coupling, skeleton, fitted.replaces, score)
    kept = selections(full.coupling, skeleton, chosen, fitted.replaces == SPARE)
    shapes = _shapes(full)
    numbers: dict[tuple[int, ...], int] = {}
    tensors: dict[str, tuple[tuple[int, int, int], ...]] = {}
    for (name, axis), positions in sorted(kept.items()):
        if name in shapes:
            number = numbers.setdefault(tuple(positions.tolist()), len(numbers))
            side = full.coupling.side(name, axis)
            groups = side.groups if side else 1
            tensors[name] = (*tensors.get(name, ()), (axis, groups, number))
    return ChannelPlan(
        selections=tuple(numbers),
        tensors=tensors,
        shapes={name: shapes[name] for name in tensors},
        attributes=fitted.skeleton.attributes,
        layers=_layers(full, fitted, kept),
        saves={"macs": _macs(full, fitted), "params": (_params(full), _params(fitted.skeleton))},
        kept=_kept(full, fitted, kept),
    )


def _shapes(analysis: Analysis) -> dict[str, tuple[int, ...]]:
    trace = analysis.traces[0]
    return dict(zip(trace.tensors, trace.shapes, strict=False))


def _params(analysis: Analysis) -> int:
    return sum(prod(shape) for name, shape in _shapes(analysis).items() if name in analysis.traces[0].parameters)


def _macs(full: Analysis, fitted: Fit) -> tuple[int, int]:
    before, after = (sum(layer_macs(analysis.traces[0]).values()) for analysis in (full, fitted.skeleton))
    return before, after


def _makers(full: Analysis) -> list[Side]:
    return [side for side in full.coupling.sides if side.role == "out"]


def _layers(
    full: Analysis, fitted: Fit, kept: dict[tuple[str, int], np.ndarray]
) -> tuple[tuple[str, int, int, int, int], ...]:
    before, after = layer_macs(full.traces[0]), layer_macs(fitted.skeleton.traces[0])
    return tuple(
        (
            _layer(side.tensor),
            len(side.component),
            len(kept[side.key]),
            before.get(side.tensor, 0),
            after.get(side.tensor, 0),
        )
        for side in _makers(full)
        if side.key in kept
    )


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _kept(full: Analysis, fitted: Fit, kept: dict[tuple[str, int], np.ndarray]) -> dict[str, str]:
    """Why each layer that lost no channel was kept whole."""
    coupling, reasons = full.coupling, {}
    for side in _makers(full):
        if side.key in kept:
            continue
        component = int(side.component[0])
        frozen = fitted.frozen.get(int(coupling.atom[component]))
        reasons[_layer(side.tensor)] = coupling.reason.get(component) or frozen or "it has no channel to spare"
    return {**reasons, **dict.fromkeys(map(_layer, full.unreached), "the forward never reads it")}
