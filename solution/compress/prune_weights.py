"""Weight pruning: the weights of least magnitude become zero and stay zero in training.

    import solution as fw
    sparse = fw.PruneWeights(sparsity=0.9)(model, x)

Magnitude is the criterion of Han et al., 2015 (arXiv:1506.02626). A sparse net costs as many MACs as a dense one unless
its runtime skips zeros; what gets smaller is the packed file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from solution.compress.coupling.inputs import AnyNetStep
from solution.compress.layers import layer_for, layers_of, left_alone, note_own_forwards, sound_weight
from solution.compress.parametrized import MASKS, keep_zeros, materialize, materialized, note_computed
from solution.contracts import InputError, Plan, StepContext, copied
from solution.evaluate.cost import sparsity
from solution.text import columns

SCOPES = ("global", "local")


def smallest(magnitudes: Tensor, count: int) -> Tensor:
    """Mask (N,) of the `count` smallest of `magnitudes` (N,); of equal ones the first."""
    if count == 0:
        return torch.zeros_like(magnitudes, dtype=torch.bool)
    edge = magnitudes.kthvalue(count).values
    mask = magnitudes < edge
    ties = torch.nonzero(magnitudes == edge).flatten()
    mask[ties[: count - int(mask.sum())]] = True
    return mask


@dataclass(frozen=True, kw_only=True)
class SparsityPlan(Plan):
    """How many weights of each layer become zero: those of least magnitude at the time of the cut.

    zeros   layer -> (zeros before, zeros after)
    shapes  layer -> shape of its weight
    total   percent of zeros among all weights of the net, before and after
    left    layer -> why it is left as it is
    """

    kind: ClassVar[str] = "prune_weights"
    zeros: dict[str, tuple[int, int]]
    shapes: dict[str, tuple[int, ...]]
    total: tuple[float, float]
    left: dict[str, str]

    def cut(self, model: nn.Module) -> nn.Module:
        """Set weights to zero and keep them so, in place."""
        modules = {path: layer_for(model, path, shape) for path, shape in self.shapes.items()}
        for path, module in modules.items():
            weight = cast(Tensor, materialize(module).weight)
            with torch.no_grad():
                mask = smallest(weight.abs().flatten(), self.zeros[path][1])
                weight.masked_fill_(mask.view_as(weight), 0)
            keep_zeros(module)
        return model

    def __str__(self) -> str:
        rows = [("layer", "weights", "zeros before", "after")]
        for path, (old, new) in self.zeros.items():
            count = torch.Size(self.shapes[path]).numel()
            rows.append((path, f"{count:,}", f"{100 * old / count:.1f} %", f"{100 * new / count:.1f} %"))
        before, after = self.total
        lines = [*columns(rows), *left_alone(self.left), f"zeros in the whole net: {before:.2f} % -> {after:.2f} %"]
        return "\n".join([*lines, "macs: unchanged, a zero costs as much as any other weight; the packed file shrinks"])


@dataclass(frozen=True, kw_only=True)
class PruneWeights(AnyNetStep):
    """Set the weights of least magnitude to zero. A net that is sparse already only gets sparser.

    sparsity  fraction of the weights of all chosen layers that is zero afterwards, in (0, 1)
    more      count `sparsity` from the weights that are not zero yet: this fraction of them becomes zero
    scope     "global": the least of all layers together; "local": the same fraction of each layer
    layers    glob patterns of the layers chosen
    protect   glob patterns of layers that are left as they are
    """

    sparsity: float = 0.5
    more: bool = False
    scope: str = "global"
    layers: tuple[str, ...] = ("*",)
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise InputError(f"sparsity is the fraction of weights that become zero, in (0, 1), got {self.sparsity}")
        if self.scope not in SCOPES:
            raise InputError(f"scope must be one of {', '.join(SCOPES)}, got {self.scope!r}")

    def decide(self, model: nn.Module, context: StepContext) -> SparsityPlan:
        """Count the zeros that each layer gets. `InputError` when there would be no more than there are."""
        modules, left = layers_of(materialized(model), self.layers, self.protect)
        sizes = {path: sound_weight(path, module).abs().flatten() for path, module in modules.items()}
        before = {path: int((size == 0).sum()) for path, size in sizes.items()}
        wanted = self._local(sizes, before) if self.scope == "local" else self._global(sizes, before)
        # A layer of zeros alone would make the whole net constant.
        after = {p: max(before[p], min(wanted[p], sizes[p].numel() - 1)) for p in sizes}
        if after == before:
            count = sum(size.numel() for size in sizes.values())
            share = 100 * sum(before.values()) / max(1, count)
            raise InputError(
                f"nothing would become zero: {share:.1f} % of the {count:,} weights chosen are, "
                f"{100 * self.sparsity:.1f} % is the target"
            )
        zeros = {path: (before[path], after[path]) for path in sizes if after[path]}
        shapes = {path: tuple(cast(Tensor, modules[path].weight).shape) for path in zeros}
        note_own_forwards(model, zeros, context.log)
        note_computed(model, tuple(zeros), context.log, keeps=MASKS)
        plan = SparsityPlan(zeros=zeros, shapes=shapes, total=(0.0, 0.0), left=left)
        total = (sparsity(model), sparsity(plan.cut(copied(model))))
        return dataclasses.replace(plan, total=total)

    def _count(self, weights: int, zeros: int) -> int:
        """How many of so many weights shall be zero, of which so many are."""
        return zeros + round(self.sparsity * (weights - zeros)) if self.more else round(self.sparsity * weights)

    def _local(self, sizes: Mapping[str, Tensor], zeros: Mapping[str, int]) -> dict[str, int]:
        return {path: self._count(size.numel(), zeros[path]) for path, size in sizes.items()}

    def _global(self, sizes: Mapping[str, Tensor], zeros: Mapping[str, int]) -> dict[str, int]:
        if not sizes:
            return {}
        together = torch.cat([size.to("cpu", torch.float32) for size in sizes.values()])
        mask = smallest(together, self._count(together.numel(), sum(zeros.values())))
        parts = mask.split([size.numel() for size in sizes.values()])
        return {path: int(part.sum()) for path, part in zip(sizes, parts, strict=True)}
