"""Ways to make a net smaller, as steps with one budget of MACs each: what is proposed before anything is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from solution.compress.channels.sensitivity import channels_alone
from solution.compress.channels.step import PruneChannels
from solution.compress.decompose import Decompose
from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, Step
from solution.shrink.subject import Subject

WAYS = ("uniform", "global", "per_cost", "sensitive", "depth", "low_rank", "smaller")
"""Channels by equal shares, by one ranking of all, by worth per multiply-accumulate, by what each layer bears; whole
blocks; thin layers; smaller pictures. All but thin layers end with channels, which meet the budget exactly."""
_ALONE = 0.5
"""Share of a layer's channels that goes when it is measured what the layer bears."""
_LEAST_SIDE = 32
_WIDE = ((128, 8), (32, 4), (0, 1))
"""(channels of the widest layer from, multiple to which channels are rounded): runtimes work in such groups."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One way at one budget: `steps` on the net as it came or as it is so far, with pictures of side `size`."""

    way: str
    macs: int
    size: int
    steps: tuple[Step, ...]

    def made(self, net: nn.Module, subject: Subject, log: Callable[[str], None]) -> nn.Module:
        """The cut net, before any training. `InputError` when it cannot be made so."""
        for step in self.steps:
            net = step(net, subject.context(self.size, log))
        return net


@dataclass(frozen=True, kw_only=True)
class Proposer:
    """Makes proposals for one net.

    bears  {layer: share of its channels that may go}, by how much each alone costs; none when it was not measured
    """

    subject: Subject
    macs: int
    bears: Mapping[str, float]

    def at(self, way: str, level: float, size: int | None = None) -> Proposal:
        """The proposal of this way that costs `level` times the net as it came."""
        subject, whole = self.subject, self.subject.header.size
        size = size or (smaller_side(whole, level) if way == "smaller" else whole)
        macs = max(round(level * self.macs), 1)
        ranked = "taylor" if subject.context(size, _quiet).train is not None else "group_norm"
        fits = subject.context(size, _quiet).calibration is not None
        shared: dict[str, Any] = {"macs": macs, "round_to": _round_to(subject.net), "reconstruct": fits}
        channels = {
            "uniform": PruneChannels(**shared),
            "global": PruneChannels(**shared, ranking="global", importance=ranked),
            "per_cost": PruneChannels(**shared, ranking="per_cost", importance=ranked),
            "sensitive": PruneChannels(**shared, limits=dict(self.bears)),
        }
        steps: tuple[Step, ...] = (channels.get(way, channels["uniform"]),)
        if way == "depth":
            ranking = "influence" if subject.context(size, _quiet).calibration is not None else "last"
            steps = (PruneLayers(macs=max(round(math.sqrt(level) * self.macs), 1), ranking=ranking), *steps)
        elif way == "low_rank":
            steps = (Decompose(macs=macs),)
        return Proposal(way=way, macs=macs, size=size, steps=steps)

    def further(self, way: str, level: float, size: int) -> Proposal:
        """From a net that came about in this way: channels alone, for whole blocks and pixels have gone before."""
        return self.at("uniform" if way in ("depth", "smaller") else way, level, size)

    def ways(self, level: float) -> list[Proposal]:
        """All that this net may be cut in to cost `level`; whether it can is seen when it is cut."""
        found = [self.at(way, level) for way in WAYS if way != "sensitive" or self.bears]
        return [one for one in found if one.way != "smaller" or one.size != self.subject.header.size]

    def without_training(self, proposal: Proposal) -> nn.Module:
        """A net that costs what the proposal's would; its weights mean nothing."""
        net = self.subject.net
        context = dataclasses.replace(self.subject.context(proposal.size, _quiet), calibration=None)
        for step in proposal.steps:
            net = _plain(step).cost_only(net, context)
        return net


def _plain(step: Step) -> Step:
    """`step` without what it would rank by on pictures: widths by one ranking of all are as near as norms say."""
    if not isinstance(step, PruneChannels):
        return step
    return dataclasses.replace(step, importance="group_norm", reconstruct=False)


def smaller_side(side: int, level: float) -> int:
    """Side of pictures with which half of the saving (as a factor) is made: a multiple of 8, or of 4 below 64."""
    grid = 8 if side >= 64 else 4
    return max(grid * round(side * level**0.25 / grid), min(_LEAST_SIDE, side))


def bearable(losses: Mapping[str, float], quality: float) -> dict[str, float]:
    """{layers as glob patterns: share of their channels that may go} from what quality each alone leaves.

    The layer that loses most keeps three quarters of its channels, those that lose nothing give all but a tenth.
    """
    worst = max((quality - left for left in losses.values()), default=0.0)
    if worst <= 0:
        return {}
    return {layer: round(0.25 + 0.65 * (1 - max(quality - left, 0.0) / worst), 3) for layer, left in losses.items()}


def measured_alone(
    subject: Subject, in_time: Callable[[int, int], bool], log: Callable[[str], None]
) -> tuple[dict[str, float], float]:
    """{layer as a glob pattern: figure on dev when half of its channels are gone}, and the figure of the whole net.

    in_time  layers measured so far, layers in all -> whether there is time for another
    """
    size = subject.header.size
    context, found = subject.context(size, _quiet), {}
    entries = channels_alone(subject.net, context)
    log(f"measuring what each of {len(entries)} layers bears, once")
    for number, (layer, step) in enumerate(entries.items()):
        if not in_time(number, len(entries)):
            log(f"what layers bear: no time for all {len(entries)}, so it is not used")
            return {}, 0.0
        with contextlib.suppress(InputError):
            cut = step(_ALONE)(subject.net, context)
            found[glob.escape(layer.partition(" +")[0])] = subject.figure(cut, size)
    return found, subject.figure(subject.net, size)


def _round_to(net: nn.Module) -> int:
    widest = max((one.weight.shape[0] for one in net.modules() if isinstance(one, nn.Conv2d)), default=0)
    return next(multiple for channels, multiple in _WIDE if widest >= channels)


def _quiet(_line: str) -> None:
    """Takes a line, and does nothing with it."""
