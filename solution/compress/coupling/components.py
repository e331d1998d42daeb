"""From ties to groups: which positions of which tensors must be kept or cut together, and which ones must stay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from solution.compress.coupling.axes import Axis
from solution.compress.coupling.ids import KEPT, ChannelIds, slim

NO_COMPONENT = -1
FIXED = "it is fed by the input or a constant"


@dataclass(frozen=True, kw_only=True)
class Side:
    """An axis with the component of each of its positions. `role` and `groups` as in `Axis`."""

    tensor: str
    axis: int
    role: str
    groups: int
    component: np.ndarray

    @property
    def key(self) -> tuple[str, int]:
        """Tensor name and axis."""
        return self.tensor, self.axis

    @property
    def group(self) -> np.ndarray:
        """(length,) the group of each position."""
        return np.arange(len(self.component)) // max(1, len(self.component) // self.groups)


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """The components of a net.

    sides      every axis of every tensor along which channels lie
    signature  (components,) a number that is equal for two components exactly when they hold the same number of
               positions in each group of each axis, and go through the same calls: they can take each other's place
    atom       (components,) components made by the same layers have one number, those that nothing makes have -1
    runs       places where a forward takes channels apart into runs of one length, in the shape of sides
    reason     component -> why it must stay; the others may be cut
    passing    call, by its label -> the components that go through it
    over_all   calls over all channels that tie none of them together
    views      view, by its label -> along which dimensions of its result channels lie
    mixing     component -> the operator that ties several channels into it
    approximated  operators that mix neighbouring channels and were taken not to
    constants  vectors that belong to no channel, though channels are stretched over them, and operands that stay
    """

    sides: tuple[Side, ...]
    signature: np.ndarray
    atom: np.ndarray
    reason: dict[int, str]
    runs: tuple[Side, ...] = ()
    passing: dict[str, np.ndarray] = field(default_factory=dict)
    views: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    over_all: frozenset[str] = frozenset()
    mixing: dict[int, str] = field(default_factory=dict)
    approximated: tuple[str, ...] = ()
    constants: frozenset[str] = frozenset()

    def side(self, tensor: str, axis: int) -> Side | None:
        """The side called so, if channels lie along it."""
        return self._by_key.get((tensor, axis))

    @cached_property
    def _by_key(self) -> dict[tuple[str, int], Side]:
        return {side.key: side for side in self.sides}

    def readers(self) -> frozenset[str]:
        """Weights that read channels: every layer but norms and depthwise convolutions."""
        return frozenset(side.tensor for side in self.sides if side.role == "in")

    def kept(self) -> np.ndarray:
        """(components,) whether it must stay."""
        kept = np.zeros(len(self.atom), dtype=bool)
        kept[list(self.reason)] = True
        return kept


def components_of(ledger: ChannelIds, before: Coupling | None = None) -> Coupling:
    """Gather the ledger's ties into components. before: those of the full net, where this is one at other sizes."""
    known_axes = None if before is None else {side.tensor: side.axis for side in before.sides}
    made_axes = None if before is None else {side.tensor: side.axis for side in before.sides if side.role == "out"}
    label, constants = _settled_labels(ledger, made_axes)
    reason = _reasons(ledger, label)
    axes = list(ledger.axes.values())
    alone = (np.bincount(label)[label] == 1) & ~np.isin(label, list(reason))
    for name, ids in ledger.elements.items():
        touched = ~alone[ids.numpy()]
        side = _element_axis(name, label[ids.numpy()], touched, known_axes)
        if side is None or any(axis.tensor == name for axis in axes):
            for one in (ids, *(axis.ids for axis in axes if axis.tensor == name)):
                _keep_all(label, reason, one, f"{name} is used in two ways")
        else:
            rows = ids.movedim(side, 0).reshape(ids.shape[side], -1)
            place = torch.from_numpy(touched).movedim(side, 0).reshape(rows.shape).int().argmax(1, keepdim=True)
            axes.append(Axis(tensor=name, axis=side, role="with", groups=1, ids=rows.gather(1, place)[:, 0]))
    runs = [_side(axis, label) for axis in ledger.runs]
    mixing = {int(one): call for ids, call in reversed(ledger.mixing) for one in np.unique(label[ids.numpy()])}
    coupling = _compacted([_side(axis, label) for axis in axes], reason, runs, _passages(ledger, label), mixing)
    over_all, approximated = frozenset(ledger.over_all), tuple(sorted(ledger.approximated))
    return replace(coupling, views=ledger.views, over_all=over_all, approximated=approximated, constants=constants)


def _settled_labels(ledger: ChannelIds, made_axes: Mapping[str, int] | None) -> tuple[np.ndarray, frozenset[str]]:
    """Labels after every postponed meeting is decided, and vectors that turned out to be constants."""
    ledger.settle_axes()
    while True:
        label = _labels(ledger)
        first = np.unique(label, return_index=True)[1]
        if ledger.makers:
            ledger.settle_makers(torch.from_numpy(first[label]), made_axes)
            continue
        if not ledger.postponed:
            return label, ledger.constants
        representative = torch.from_numpy(first[label])
        if not ledger.settle(representative) and not ledger.settle_elements(representative):
            makers = [label[axis.ids.numpy()] for axis in ledger.axes.values() if axis.role == "out"]
            is_made = np.isin(label, np.concatenate([label[:0], *makers]))
            constants = ledger.constants | _in_the_way(ledger, torch.from_numpy(is_made))
            ledger.give_up_postponed()
            return label, constants


def _in_the_way(ledger: ChannelIds, is_made: Tensor) -> frozenset[str]:
    """Vectors over which channels are stretched though no layer makes what lies along them. And of two kinds of
    channels that are stretched over each other the fewer, for these stay and the others may go.

    is_made  (ids,) whether a layer makes a channel
    """
    vectors = {name: one.ids for (name, _), one in ledger.axes.items() if one.role in ("with", "in")}
    found: set[str] = set()
    for meeting in ledger.postponed:
        few = [slim(view) for view in meeting.views]
        over = [ids for ids in few if bool((ids > KEPT).all()) and not bool(is_made[ids].any())]
        found |= {name for name, ids in vectors.items() if any(bool(torch.isin(ids, one).all()) for one in over)}
        if not over and len(few) == sum(meeting.stretched) == 2 and few[0].numel() != few[1].numel():
            fewer = meeting.numbers[int(few[1].numel() < few[0].numel())]
            found.add(f"{meeting.call} yields {fewer}")
    return frozenset(found)


def _labels(ledger: ChannelIds) -> np.ndarray:
    """(ids,) the component of each id. Ties to the two special ids join nothing."""
    ties = torch.cat([torch.empty(2, 0, dtype=torch.long), *ledger.ties], 1)
    edges = ties[:, (ties > KEPT).all(0)].numpy()
    graph = coo_array((np.ones(edges.shape[1], dtype=np.int8), edges), shape=(ledger.next_id,) * 2)
    return connected_components(graph, directed=False)[1]


def _reasons(ledger: ChannelIds, label: np.ndarray) -> dict[int, str]:
    reason: dict[int, str] = {}
    for ids, why in ledger.kept:
        for component in np.unique(label[ids.numpy()]):
            reason.setdefault(int(component), why)
    edges = torch.cat([torch.empty(2, 0, dtype=torch.long), *ledger.ties], 1)
    pinned = edges.amax(0)[(edges == KEPT).any(0)].numpy()
    for component in np.unique(label[pinned]):
        reason.setdefault(int(component), FIXED)
    return reason


def _element_axis(
    name: str, component: np.ndarray, touched: np.ndarray, known_axes: Mapping[str, int] | None
) -> int | None:
    """The one axis along which the components of a tensor's elements differ. None when there are several.

    touched  elements that are tied to anything: the others, such as positions that a short input leaves out, go along
    """
    if known_axes is not None:
        return known_axes.get(name)
    differing = [axis for axis in range(component.ndim) if not (component == np.take(component, [0], axis)).all()]
    if len(differing) > 1 and touched.any():
        differing = [axis for axis in differing if _is_along(component, touched, axis)]
    return differing[0] if len(differing) == 1 else None


def _is_along(component: np.ndarray, touched: np.ndarray, axis: int) -> bool:
    """Whether along `axis` each place has elements that are touched, all of them of one component."""
    rows, there = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (component, touched))
    low = np.where(there, rows, np.iinfo(rows.dtype).max).min(1)
    return bool(there.any(1).all()) and bool((np.where(there, rows, -1).max(1) == low).all())


def _keep_all(label: np.ndarray, reason: dict[int, str], ids: Tensor, why: str) -> None:
    for component in np.unique(label[ids.numpy()]):
        reason.setdefault(int(component), why)


def _side(axis: Axis, label: np.ndarray) -> Side:
    component = label[axis.ids.numpy()]
    return Side(tensor=axis.tensor, axis=axis.axis, role=axis.role, groups=axis.groups, component=component)


Passages = list[tuple[str, str, np.ndarray, np.ndarray]]
"""(call, slot, labels, counts) as in `Passage`."""


def _passages(ledger: ChannelIds, label: np.ndarray) -> Passages:
    return [(one.call, one.slot, label[one.ids.numpy()], one.counts.numpy()) for one in ledger.passages]


def _compacted(
    sides: list[Side], reason: dict[int, str], runs: list[Side], passages: Passages, mixing: dict[int, str]
) -> Coupling:
    """Renumber the components by first appearance, and describe each of them."""
    labels = np.concatenate([np.empty(0, dtype=np.int64), *(side.component for side in sides)])
    known, numbers = by_appearance(labels)
    most = max([0, *(int(some.max()) for _, _, some, _ in passages), *known.tolist(), *reason])
    order = np.full(most + 1, NO_COMPONENT)
    order[known] = np.arange(len(known))
    parts = np.split(numbers, np.cumsum([len(side.component) for side in sides])[:-1]) if sides else []
    sides = [replace(side, component=part) for side, part in zip(sides, parts, strict=True)]
    atom = _atoms(sides, len(known))
    why = {int(order[component]): text for component, text in reason.items() if order[component] != NO_COMPONENT}
    for component in np.flatnonzero(atom == NO_COMPONENT).tolist():
        why.setdefault(component, FIXED)
    known_runs = [run for run in runs if np.isin(run.component, known).all()]
    passing: dict[str, Any] = {}
    signature = _signatures(sides, len(known))
    for call, slot, some, counts in passages:
        there = order[some]
        found = there != NO_COMPONENT
        np.add.at(signature, there[found], np.int64(_hash(call, slot)) * counts[found])
        passing[call] = np.union1d(passing.get(call, there[:0]), there[found])
    return Coupling(
        sides=tuple(sides),
        signature=signature,
        atom=atom,
        reason=why,
        runs=tuple(replace(run, component=order[run.component]) for run in known_runs),
        passing=passing,
        mixing={int(order[one]): call for one, call in mixing.items() if one <= most and order[one] != NO_COMPONENT},
    )


def _hash(*words: object) -> int:
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _signatures(sides: list[Side], count: int) -> np.ndarray:
    """Sum of a hash per position: equal for equal multisets of (tensor, axis, group)."""
    signature = np.zeros(count, dtype=np.int64)
    for side in sides:
        hashes = np.array([_hash(*side.key, group) for group in range(side.groups)], dtype=np.int64)
        np.add.at(signature, side.component, hashes[side.group])
    return signature


def made_alike(coupling: Coupling) -> np.ndarray:
    """(components,) a number equal for two components that the same layers make and carry, groups aside."""
    signature = np.zeros(len(coupling.atom), dtype=np.int64)
    for side in coupling.sides:
        if side.role != "in":
            np.add.at(signature, side.component, _hash(*side.key))
    return signature


def _atoms(sides: list[Side], count: int) -> np.ndarray:
    made = np.zeros(count, dtype=np.int64)
    for side in sides:
        if side.role == "out":
            made[np.unique(side.component)] += _hash(*side.key)
    atoms = np.full(count, NO_COMPONENT)
    atoms[made != 0] = by_appearance(made[made != 0])[1]
    return atoms


def by_appearance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values in the order in which they first appear, and (N,) the place of each value among them."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return distinct[order], place[inverse.reshape(-1)]


def layers_together(coupling: Coupling) -> list[tuple[str, ...]]:
    """Layers whose channels may be cut, in groups that can only be cut together."""
    groups: list[Any] = []
    free = ~coupling.kept()
    for side in coupling.sides:
        atoms = set(coupling.atom[side.component[free[side.component]]].tolist()) - {NO_COMPONENT}
        if side.role == "out" and atoms:
            layers = [side.tensor.rpartition(".")[0] or side.tensor]
            meeting = [group for group in groups if group[1] & atoms]
            layers = [layer for others, _ in meeting for layer in others] + layers
            apart = [group for group in groups if not group[1] & atoms]
            groups = [*apart, (layers, atoms.union(*(others for _, others in meeting)))]
    return [tuple(dict.fromkeys(layers)) for layers, _ in groups]
