"""Layer pruning: whole blocks leave a net, the rest keeps its weights.

    import solution as fw
    smaller = fw.PruneLayers(macs="70%", ranking="influence")(model, x)

What can go is found in the net itself (`solution.compress.residual`): the units of a ShuffleNet stage but its first,
the residual blocks of a ResNet, the layers of a vision transformer. Which ones go is measured
(`solution.compress.block_ranking`) or simply the last ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from solution.budget import Budget
from solution.compress.block_ranking import Pick, last_first, least_harm, least_influence
from solution.compress.listing import savings
from solution.compress.residual import Block, ResidualStage, module_at, stages_of, taken_out, without
from solution.contracts import InputError, Plan, StepContext, StructuralStep
from solution.evaluate.cost import macs, params

RANKINGS = ("dev", "influence", "last")


@dataclass(frozen=True, kw_only=True)
class LayerPlan(Plan):
    """Which blocks leave.

    removed  module paths
    units    stage path -> (blocks before, blocks after)
    saves    {"macs": (before, after), "params": (before, after)}
    blocks   removed block -> (MACs of one image that it saves, parameters that it saves)
    listed   removed blocks whose place a `PassThrough` takes
    """

    kind: ClassVar[str] = "prune_layers"
    removed: tuple[str, ...]
    units: dict[str, tuple[int, int]]
    saves: dict[str, tuple[int, int]]
    blocks: dict[str, tuple[int, int]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()

    def cut(self, model: nn.Module) -> nn.Module:
        """Take the blocks out. `InputError` names a block that this net does not have, or has in another size."""
        for path, (_, expected) in self.blocks.items():
            found = params(module_at(model, path, path))
            if found != expected:
                raise InputError(
                    f"this plan was made for another net: block {path!r} has {found:,} parameters here, "
                    f"{expected:,} in the plan"
                )
        return without(model, self.removed, self.listed)

    def __str__(self) -> str:
        width = max(len(stage) for stage in self.units)
        lines = [f"{'stage':<{width}}  blocks  removed"]
        for stage, (before, after) in self.units.items():
            gone = [path.rpartition(".")[2] for path in self.removed if path.rpartition(".")[0] == stage]
            lines.append(f"{stage:<{width}}  {f'{before} -> {after}':<6}  {', '.join(gone) or '-'}")
        lines += [f"{path} saves {macs:,} MACs, {params:,} parameters" for path, (macs, params) in self.blocks.items()]
        return "\n".join([*lines, *savings(self.saves)])


@dataclass(frozen=True, kw_only=True)
class PruneLayers(StructuralStep):
    """Take whole blocks out. Give one of `units`, `count` and `macs`.

    units    blocks to leave in each stage, such as (2, 5, 2)
    count    or: how many blocks to take out, wherever the ranking says
    macs     or: what the cut net may cost at most (`Budget`: "70%", "12M"), in the competition's convention. Never
             exceeded; blocks that the budget has room for stay
    ranking  "dev": those whose removal raises the loss on the dev split least, one after another;
             "influence": those that change their input least, on calibration batches or the example alone;
             "last": the last ones
    """

    currency: ClassVar[str | None] = "macs"
    units: tuple[int, ...] | None = None
    count: int | None = None
    macs: str | int | None = None
    ranking: str = "dev"

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("units", "count", "macs")}
        if sum(value is not None for value in given.values()) != 1:
            said = ", ".join(f"{name}={value}" for name, value in given.items())
            raise InputError(f"give either units or count or macs, got {said}")
        if self.count is not None and self.count < 1:
            raise InputError(f"count must be at least 1, got {self.count}")
        if self.macs is not None:
            Budget.of(self.macs, "macs")
        if self.ranking not in RANKINGS:
            raise InputError(f"ranking must be one of {', '.join(RANKINGS)}, got {self.ranking!r}")

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The cut of the last blocks: which blocks of a stage go does not change what is left of it."""
        return dataclasses.replace(self, ranking="last").run(model, context)

    def decide(self, model: nn.Module, context: StepContext) -> LayerPlan:
        """Choose the blocks. `InputError` when there are not so many, nothing would go, or the budget is too small."""
        stages = stages_of(model, context.example)
        if not stages:
            raise InputError(
                f"{type(model).__name__} has no block that it can do without, so nothing would be taken out: a block "
                "hands its input on beside what it computes, and is one of several in a Sequential or ModuleList"
            )
        removed = self._removed(model, context, stages)
        smaller = taken_out(model, removed)
        return LayerPlan(
            removed=tuple(block.path for block in removed),
            units={s.path: (s.size, s.size - sum(block in removed for block in s.blocks)) for s in stages},
            saves={
                "macs": (macs(model, context.example), macs(smaller, context.example)),
                "params": (params(model), params(smaller)),
            },
            blocks={block.path: (block.macs, block.params) for block in removed},
            listed=tuple(block.path for block in removed if block.listed),
        )

    def _removed(self, model: nn.Module, context: StepContext, stages: Sequence[ResidualStage]) -> list[Block]:
        """The blocks that go, in order of execution."""
        blocks = [block for stage in stages for block in stage.blocks]
        if self.units is not None:
            open_blocks = _by_stage(stages, self.units)
        elif self.count is not None:
            open_blocks = _counted(self.count, blocks)
        else:
            full = macs(model, context.example)
            saving = _saving(Budget.of(self.macs, "macs").limit(full), full, blocks)
            open_blocks = _until(lambda gone: _macs(gone) >= saving, blocks)
        gone: list[Block] = []
        pick = self._pick(model, blocks, context)
        while candidates := open_blocks(gone):
            gone.append(pick(gone, candidates))
        if self.macs is not None:
            gone = _needed(gone, saving)
        return [block for block in blocks if block in gone]

    def _pick(self, model: nn.Module, blocks: Sequence[Block], context: StepContext) -> Pick:
        if self.ranking == "dev":
            return least_harm(model, context)
        return least_influence(model, blocks, context) if self.ranking == "influence" else last_first


Open = Callable[[Sequence[Block]], Sequence[Block]]
"""Blocks that are gone -> blocks of which one more must go, in order of execution; none when enough are gone."""


def _until(enough: Callable[[Sequence[Block]], bool], blocks: Sequence[Block]) -> Open:
    return lambda gone: [] if enough(gone) else [block for block in blocks if block not in gone]


def _counted(count: int, blocks: Sequence[Block]) -> Open:
    if count > len(blocks):
        raise InputError(f"cannot take out {count} blocks: only {len(blocks)} keep the shape of their input")
    return _until(lambda gone: len(gone) == count, blocks)


def _by_stage(stages: Sequence[ResidualStage], units: Sequence[int]) -> Open:
    """Each stage comes down to its number of `units`."""
    sizes = [stage.size for stage in stages]
    if len(sizes) != len(units):
        raise InputError(f"units {units} names {len(units)} stages, the net has {len(sizes)}: {sizes}")
    for stage, keep in zip(stages, units, strict=True):
        least = stage.size - len(stage.blocks)
        if not least <= keep <= stage.size:
            raise InputError(f"{stage.path} has {stage.size} blocks and can keep {least} to {stage.size}, not {keep}")
    if sizes == list(units):
        raise InputError(f"units {units} is what the net already has: nothing would be taken out")

    def open_blocks(gone: Sequence[Block]) -> Sequence[Block]:
        return [
            block
            for stage, keep in zip(stages, units, strict=True)
            if stage.size - sum(block in gone for block in stage.blocks) > keep
            for block in stage.blocks
            if block not in gone
        ]

    return open_blocks


def _macs(blocks: Sequence[Block]) -> int:
    return sum(block.macs for block in blocks)


def _saving(limit: float, full: int, blocks: Sequence[Block]) -> float:
    """MACs that have to go. `InputError` names the least that can be left."""
    least = full - _macs(blocks)
    if limit >= full:
        raise InputError(f"macs must come below {full:,}, which the net has, got {limit:,.0f}: nothing would go")
    if limit < least:
        raise InputError(
            f"macs {limit:,.0f} cannot be reached by taking out blocks: the least is {least:,} "
            f"({least / full:.1%} of {full:,}), without all {len(blocks)} that can go"
        )
    return full - limit


def _needed(gone: Sequence[Block], saving: float) -> list[Block]:
    """`gone` without the blocks that may come back while `saving` MACs stay saved; those missed most come first."""
    needed = list(gone)
    for block in reversed(gone):
        if _macs(needed) - block.macs >= saving:
            needed.remove(block)
    return needed
