"""Integer channel ids: one number per element of an activation, naming the channel that the element lives or dies with.

An id tensor has the full shape of its activation, but dimensions along which nothing changes (batch, height, width)
have stride 0 and take no memory. `Ledger` hands out ids, and remembers which are tied and which must stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from solution.compress.coupling.axes import Axis, Meeting, Passage

NEUTRAL = 0
"""An element that has nothing to do with channels: a constant, a mask, padding."""
KEPT = 1
"""An element that always stays and is no channel of ours: a pixel of the input."""

PAIR_BITS = 31
"""Ids are smaller than 2 ** 31, so that two of them fit into one number."""

MOST_REPEATED = 1 << 12
"""Ties up to so many are noted as they come, some more than once: to sort them takes longer."""

MOST_ELEMENTS = 1 << 24
"""Id tensors are never written out beyond this many elements (128 MiB); what would need more is kept whole."""


def uniform(value: int, shape: Sequence[int]) -> Tensor:
    """The same id everywhere, in no memory."""
    return torch.tensor(value).expand(tuple(shape))


def varies(ids: Tensor, dim: int) -> bool:
    """Whether ids change along `dim`."""
    return ids.shape[dim] > 1 and ids.stride(dim) != 0


def slim(ids: Tensor) -> Tensor:
    """The same ids with every uniform dimension narrowed to size 1."""
    for dim in range(ids.ndim):
        if ids.shape[dim] > 1 and ids.stride(dim) == 0:
            ids = ids.narrow(dim, 0, 1)
    return ids


def packed(ids: Tensor) -> Tensor:
    """The same ids with stride 0 wherever nothing changes."""
    if ids.numel() == 0:
        return ids
    small = slim(ids)
    for dim in range(small.ndim):
        if small.shape[dim] > 1:
            first = small.narrow(dim, 0, 1)
            small = first if bool((small == first).all()) else small
    return small.contiguous().expand(ids.shape)


class ChannelIds:
    """Ids handed out so far, ties between them, ids that must stay and why, the axes they belong to, and the calls that
    they go through. `label` is that of the call that is looked at.
    """

    def __init__(
        self,
        readers: frozenset[str] = frozenset(),
        in_groups: frozenset[str] = frozenset(),
        decided: frozenset[str] | None = None,
        approximate: bool = False,
        carriers: frozenset[str] = frozenset(),
        constants: frozenset[str] = frozenset(),
    ) -> None:
        """What is known from the full net, for one that may have few channels left.

        readers      weights that read channels (not depthwise)
        in_groups    axes that are normalized in groups of several channels
        decided      calls over all channels that tie none of them together (`over_all`)
        approximate  calls that mix neighbouring channels tie none of them together either
        carriers     tensors along which channels lie, also where one is left
        constants    vectors of numbers that belong to no channel, such as powers or centers of bases; and operands
                     that stay, of calls that multiply two kinds of channels with each other
        """
        self.constants = constants
        self.readers, self.in_groups, self.carriers = readers, in_groups, carriers
        self.decided, self.approximate = decided, approximate
        self.approximated: set[str] = set()
        self.mixing: list[tuple[Tensor, str]] = []
        self.over_all: set[str] = set()
        self.next_id = 2
        self.ties: list[Tensor] = []
        self.kept: list[tuple[Tensor, str]] = []
        self.axes: dict[tuple[str, int], Axis] = {}
        self.elements: dict[str, Tensor] = {}
        self.makers: dict[str, tuple[tuple[int, ...], Tensor]] = {}
        self.derived: set[str] = set()
        self.postponed: list[Meeting] = []
        self.runs: list[Axis] = []
        self.label = ""
        self.passages: list[Passage] = []
        self.views: dict[str, tuple[bool, ...]] = {}
        self._counted: dict[tuple[object, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def fresh(self, shape: Sequence[int]) -> Tensor:
        """New ids, all different."""
        count = int(torch.Size(shape).numel())
        ids = torch.arange(self.next_id, self.next_id + count).view(tuple(shape))
        self.next_id += count
        return ids

    def tie(self, left: Tensor, right: Tensor) -> None:
        """Elements of two id tensors of one shape stay or go together, pair by pair."""
        if left is right:
            return
        different = (left != right) & (left != NEUTRAL) & (right != NEUTRAL)
        left, right = left[different], right[different]
        if len(left) > MOST_REPEATED:
            pairs = (left << PAIR_BITS | right).unique()  # much faster than unique(dim=1)
            left, right = pairs >> PAIR_BITS, pairs & (1 << PAIR_BITS) - 1
        if len(left):
            self.ties.append(torch.stack([left, right]))

    def keep(self, ids: Tensor, reason: str) -> None:
        """These ids must stay."""
        ids = slim(ids).unique()
        ids = ids[ids > KEPT]
        if len(ids):
            self.kept.append((ids, reason))

    def passes(self, slot: str, ids: Tensor) -> None:
        """Channels go through the call that is looked at, as its argument `slot`."""
        small = slim(ids)
        key = small.data_ptr(), small.shape, small.stride(), ids.numel()
        if key not in self._counted:
            distinct, counts = small.reshape(-1).unique(return_counts=True)
            channels = distinct > KEPT
            self._counted[key] = small, distinct[channels], counts[channels] * (ids.numel() // max(1, small.numel()))
        _, distinct, counts = self._counted[key]
        if len(distinct):
            self.passages.append(Passage(call=self.label, slot=slot, ids=distinct, counts=counts))

    def is_over_all(self, condition: bool, what: str = "") -> bool:
        """Whether the call that is looked at takes all channels together, such as a mean: it is then one over those
        that stay. In the full net this is so if `condition` holds; `what` tells several questions of a call apart.
        """
        label = f"{self.label}{what}"
        holds = condition if self.decided is None else label in self.decided
        if holds:
            self.over_all.add(label)
        return holds

    @property
    def call(self) -> str:
        """The operator that is looked at."""
        return self.label.partition(" ")[2].partition(" ")[0].rpartition("_")[0]

    def blended(self, ids: Tensor, dim: int, length: int) -> Tensor | None:
        """Channels along `dim`, of which a call mixes neighbours into `length` results, each as if it stood alone.

        None where that is not asked for, or where results and channels do not belong to each other.
        """
        spare = ids.shape[dim] - length
        if not self.approximate or not varies(ids, dim) or spare < 0:
            return None
        ids = ids.narrow(dim, spare // 2, length)
        if bool((slim(ids) <= KEPT).any()):
            return None
        self.approximated.add(self.call)
        return ids

    def statistic(self, ids: Tensor) -> None:
        """The call that is looked at computes something from all of `ids`."""
        places = slim(ids).reshape(-1)
        self.tie(self.axis(f":{self.label}", 0, len(places), "joint"), places)

    def axis(self, tensor: str, axis: int, length: int, role: str, groups: int = 1) -> Tensor:
        """The ids (length,) of an axis, handed out on first use and the same ever after."""
        key = (tensor, axis)
        if key not in self.axes:
            self.axes[key] = Axis(tensor=tensor, axis=axis, role=role, groups=groups, ids=self.fresh((length,)))
        elif self.axes[key].role == "with" and role in ("in", "out"):
            self.axes[key] = replace(self.axes[key], role=role)
        known = self.axes[key]
        if len(known.ids) != length or known.groups != groups:
            self.keep(known.ids, f"{tensor} is used in two ways")
            return uniform(KEPT, (length,))
        return known.ids

    def output(self, name: str, ids: Tensor) -> None:
        """What the net returns stays, and stays in its place."""
        self.keep(ids, "it is an output")
        places = slim(ids).reshape(-1)
        places = places[places > KEPT]
        if len(places):
            self.axes[name, 0] = Axis(tensor=name, axis=0, role="output", groups=1, ids=places)

    def in_runs(self, name: str, ids: Tensor, dim: int, parts: int) -> None:
        """The forward takes channels along `dim` as so many runs of one length: a shuffle, or halves."""
        dim %= ids.ndim
        along = slim(ids)
        if parts > 1 and along.numel() == along.shape[dim] == ids.shape[dim] and bool((along > KEPT).all()):
            self.runs.append(Axis(tensor=f":{name}", axis=dim, role="run", groups=parts, ids=along.reshape(-1)))

    def tensor_elements(self, name: str, shape: Sequence[int]) -> Tensor:
        """An id for every element of a parameter that takes part as an activation (position embedding, scale)."""
        count = int(torch.Size(shape).numel())
        if (count == 1 and name not in self.carriers) or name in self.constants:
            return uniform(NEUTRAL, shape)
        if len(shape) == 1:
            return self.axis(name, 0, count, "with")
        if count > MOST_ELEMENTS:
            return uniform(KEPT, shape)
        if name not in self.elements:
            self.elements[name] = self.fresh(shape)
        return self.elements[name]

    def makes(self, name: str, shape: Sequence[int], axes: Sequence[int]) -> Tensor:
        """Ids along several axes of a weight at once: of all elements, until it is known along which axis they differ
        (`settle_makers`).
        """
        if name not in self.makers:
            self.makers[name] = tuple(axes), self.fresh([shape[axis] for axis in axes])
        if self.makers[name][0] != tuple(axes):
            self.keep(self.makers[name][1], f"{name} is used in two ways")
        return self.makers[name][1]

    def settle_makers(self, representative: Tensor, known_axes: Mapping[str, int] | None) -> None:
        """What lies along several axes of a weight is made along the first of those along which ties let it differ."""
        for name, (axes, ids) in self.makers.items():
            known = representative[ids]
            differing = [dim for dim in range(ids.ndim) if bool((known != known.narrow(dim, 0, 1)).any())]
            dim = (differing or [0])[0] if known_axes is None else axes.index(known_axes.get(name, axes[0]))
            along = self.collapse(ids, [other for other in range(ids.ndim) if other != dim]).movedim(dim, 0)
            self.tie(self.axis(name, axes[dim], len(along), "out"), along.reshape(len(along), -1)[:, 0])
        self.makers = {}

    def collapse(self, ids: Tensor, dims: Iterable[int]) -> Tensor:
        """Tie everything along `dims` and return ids that are uniform there, in the same shape."""
        for dim in dims:
            if varies(ids, dim):
                small = slim(ids)
                one = small.amax(dim, keepdim=True)
                self.tie(one.expand_as(small), small)
                self.mixing.append((one.reshape(-1), self.call))
                ids = one.expand(ids.shape)
        return ids

    def meet(self, operands: Sequence[Tensor], shape: Sequence[int], reason: str) -> Tensor:
        """Ids of an element-wise result: operands that meet in an element are tied.

        An operand that is stretched over another one's channels (a spatial gate, one value for all) is not one of
        them: the result has the other's ids. It is looked at again when all ties are known (`settle`).
        """
        padded = [ids[(None,) * (len(shape) - ids.ndim)] for ids in operands]
        for number in [number for number in range(len(padded)) if f"{self.label} yields {number}" in self.constants]:
            self.keep(padded[number], f"{reason} multiplies other channels by it")
            padded[number] = uniform(NEUTRAL, padded[number].shape)
        views = _with_channels(padded)
        numbers = [number for number, ids in enumerate(padded) if any(ids is view for view in views)]
        stretched = [self._stretches(_is_stretched(view, views), number) for number, view in enumerate(views)]
        if any(stretched):
            met = Meeting(self.label, views, stretched, numbers, tuple(shape), reason)
            self.postponed.append(met)
            views = [view for view, is_stretched in zip(views, stretched, strict=True) if not is_stretched]
        return self._met(views, shape, reason)

    def _stretches(self, does: bool, number: int) -> bool:
        """Whether an operand is stretched over others; over many heads in the full net means over one that is left."""
        label = f"{self.label} stretches {number}"
        holds = does or label in (self.decided or ())
        self.over_all.update([label] if holds else [])
        return holds

    def settle(self, representative: Tensor) -> bool:
        """Look at stretched operands again, now that `representative` (ids,) gives tied ids one number.

        Where they turn out to meet nothing but one channel they are tied to it. Returns whether any were.
        """
        waiting = []
        for meeting in self.postponed:
            known = [packed(representative[slim(view)]).expand(view.shape) for view in meeting.views]
            if f"{meeting.call} is given up" in (self.decided or ()) or any(
                _is_stretched(view, known) for view in known
            ):
                waiting.append(meeting)
            else:
                self._met(known, meeting.shape, meeting.reason)
        before, self.postponed = len(self.postponed), waiting
        return len(waiting) < before

    def settle_elements(self, representative: Tensor) -> bool:
        """Elements of a parameter along two axes, one of which a stretched operand lacks, go together along that one.

        Such as centers of clusters, each of which has all channels. Returns whether there were any.
        """
        return any(
            self._settled(meeting, view, packed(representative[slim(view)]).expand(view.shape)) is not None
            for meeting in self.postponed
            for view in meeting.views
        )

    def with_channels(self, ids: Tensor) -> Tensor:
        """`ids`; where they are such elements, those of one element for each channel."""
        for meeting in self.postponed:
            for view in meeting.views:
                if meeting.shape == tuple(ids.shape) and torch.equal(slim(view), slim(ids)):
                    found = self._settled(meeting, view, view)
                    return ids if found is None else found.expand(ids.shape)
        return ids

    def _settled(self, meeting: Meeting, view: Tensor, known: Tensor) -> Tensor | None:
        low, high = int(slim(view).min()), int(slim(view).max())
        dims = [dim for dim in range(view.ndim) if varies(known, dim)]
        lacking = [dim for dim in dims if any(other.shape[dim] == 1 for other in meeting.views)]
        held = any(int(ids.min()) <= low and high <= int(ids.max()) for ids in self.elements.values())
        return self.collapse(view, lacking) if held and 0 < len(lacking) < len(dims) else None

    def settle_axes(self) -> None:
        """Elements of a tensor along one axis of which channels lie, too, go along with these."""
        axes = [axis for axis in self.axes.values() if axis.tensor in self.elements]
        alone = [axis for axis in axes if sum(other.tensor == axis.tensor for other in axes) == 1]
        for axis in alone:
            ids = self.elements.pop(axis.tensor)
            ids = self.collapse(ids, [dim for dim in range(ids.ndim) if dim != axis.axis]).movedim(axis.axis, 0)
            self.tie(ids.reshape(len(ids), -1)[:, 0], axis.ids)

    def give_up_postponed(self) -> None:
        """Operands that really are stretched over several channels stay; channels keep the element that they meet."""
        for meeting in self.postponed:
            self.over_all.add(f"{meeting.call} is given up")
            for number, view in enumerate(meeting.views):
                if meeting.stretched[number]:
                    self.keep(view, f"{meeting.reason} stretches it over other channels")
                    for other in (one for one in meeting.views if one is not view):
                        self._meets(meeting.call, number, view, slim(other))
        self.postponed = []

    def _meets(self, call: str, number: int, view: Tensor, ids: Tensor) -> None:
        """Each of `ids` meets an element of operand `number`; which one matters where both change."""
        dims = [dim for dim in range(ids.ndim) if ids.shape[dim] > 1 and view.shape[dim] > 1]
        if dims:
            sizes = [ids.shape[dim] if dim in dims else 1 for dim in range(ids.ndim)]
            places = torch.arange(torch.Size(sizes).numel()).view(sizes).expand(ids.shape)
            pairs = torch.stack([places.reshape(-1), ids.reshape(-1)]).unique(dim=1)
            if pairs.shape[1] > MOST_REPEATED:
                self.keep(ids, "it meets too many numbers to follow")
                return
            for place in pairs[0].unique().tolist():
                some = (pairs[0] == place) & (pairs[1] > KEPT)
                self.passages.append(
                    Passage(call=call, slot=f"{number} at {place}", ids=pairs[1, some], counts=some[some].long())
                )

    def _met(self, views: list[Tensor], shape: Sequence[int], reason: str) -> Tensor:
        if not views:
            return uniform(NEUTRAL, shape)
        views = [view.expand(tuple(shape)) for view in views]
        for dim in range(len(shape)):
            if not any(varies(view, dim) for view in views):
                views = [view.narrow(dim, 0, min(1, view.shape[dim])) for view in views]
        if views[0].numel() > MOST_ELEMENTS:
            for view in views:
                self.keep(view, f"{reason} is too large to follow")
            return uniform(KEPT, shape)
        return self._merged(views).expand(tuple(shape))

    def _merged(self, views: list[Tensor]) -> Tensor:
        views = sorted(views, key=_size_and_age)
        result = views[0]
        for view in views[1:]:
            self.tie(result, view)
            if bool((slim(result) == NEUTRAL).any()):
                result = packed(torch.where(result == NEUTRAL, view, result))
        return result


def _size_and_age(view: Tensor) -> tuple[int, int]:
    """Older ids first, for new ones say less of what goes together; constants last."""
    return slim(view).numel(), int(slim(view).max()) if int(slim(view).max()) > KEPT else 1 << PAIR_BITS


def _with_channels(views: list[Tensor]) -> list[Tensor]:
    """Those that are not neutral throughout, and no constants that change only where channels do not."""
    views = [view for view in views if not is_neutral(view)]
    dims = [{dim for dim in range(view.ndim) if varies(view, dim)} for view in views]
    lie = [along for view, along in zip(views, dims, strict=True) if int(slim(view).max()) > KEPT]
    drop = [lie and along and not along & set().union(*lie) for along in dims]
    return [view for view, dropped in zip(views, drop, strict=True) if not dropped]


def _is_stretched(view: Tensor, views: Sequence[Tensor]) -> bool:
    """Whether `view` has size 1 in a dimension along which another of `views` varies."""
    return any(view.shape[dim] == 1 and varies(other, dim) for other in views for dim in range(view.ndim))


def is_neutral(ids: Tensor) -> bool:
    """Whether no element has to do with channels."""
    return ids.numel() == 0 or (slim(ids).numel() == 1 and int(slim(ids)) == NEUTRAL)
