"""Training that pulls whole channels towards zero, so that a cut after it takes little away.

    GroupPenalty(epochs=20, strength=1e-3), then PruneChannels(macs="50%")

A group lasso (Yuan & Lin, 2006; on filters: Wen et al., 2016, arXiv:1608.03665) over everything that is cut together
with a channel (as Fang et al., 2023, arXiv:2301.12900): what makes it, what reads it, its norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solution.compress.channels.importance import rows_of
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.tracing import named_tensors
from solution.contracts import InputError, StepContext
from solution.train.step import ClassificationObjective, Train
from solution.train.trainer import Objective


class ChannelNorms(nn.Module):
    """Length of all weights of each group of coupled channels that may be cut. Holds no weights of its own."""

    free: Tensor

    def __init__(self, net: nn.Module, example: Tensor, protect: tuple[str, ...] = ()) -> None:
        """net, example, protect: as in PruneChannels. `InputError` when nothing can be cut."""
        super().__init__()
        coupling = analyze(TraceRequest(model=net, example=example, protected=protect)).coupling
        parameters = dict(net.named_parameters())
        self.sides = [side for side in coupling.sides if side.tensor in parameters]
        self.count = len(coupling.atom)
        for number, side in enumerate(self.sides):
            self.register_buffer(f"group{number}", torch.from_numpy(side.component), persistent=False)
        self.register_buffer("free", torch.from_numpy(~coupling.kept()), persistent=False)
        if not self.free.any():
            raise InputError("no channel of the net can be cut: there is nothing to penalize")

    def forward(self, net: nn.Module) -> Tensor:
        """(groups that may be cut,) Euclidean lengths, differentiable in the weights of `net`."""
        tensors = named_tensors(net)
        squares = torch.zeros(self.count, device=self.free.device)
        for number, side in enumerate(self.sides):
            if side.tensor in tensors:
                of_each = rows_of(tensors[side.tensor], side).float().square().sum(1)
                squares = squares.index_add(0, getattr(self, f"group{number}"), of_each)
        return (squares[self.free] + 1e-12).sqrt()


@dataclass(frozen=True, kw_only=True)
class GroupPenalty(Train):
    """Train, and keep the sum of the lengths of all coupled channel groups small.

    strength  what one unit of length costs in units of the loss
    protect   glob patterns of layers whose channels are left alone
    """

    strength: float = 1e-4
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength <= 0:
            raise InputError(f"strength must be above 0, got {self.strength}")

    def objective(self, net: nn.Module, context: StepContext) -> Objective:
        """The net, its loss on labels and the penalty."""
        return GroupPenaltyObjective(net, self, context)


class GroupPenaltyObjective(ClassificationObjective):
    """An objective with a penalty on the lengths of channel groups."""

    settings: GroupPenalty

    def __init__(self, net: nn.Module, settings: GroupPenalty, context: StepContext) -> None:
        norms = ChannelNorms(net, context.example, settings.protect)
        super().__init__(net, settings, context)
        self.norms = norms

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), targets, and the teachers' stored logits, if any."""
        return super().forward(images, targets, teacher_logits) + self.settings.strength * self.norms(self.net).sum()
