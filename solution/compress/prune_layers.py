"""Layer pruning: whole blocks leave a net, the rest keeps its weights.

    import solution as fw
    smaller = fw.PruneLayers(macs="70%", ranking="influence")(model, x)

`solution.compress.residual` finds what can go: the units of a ShuffleNet stage but its first, the residual blocks of a
ResNet, the layers of a vision transformer. Which ones go is measured, or simply the last ones:

dev        the loss on the dev split, one block after another so that each choice knows the earlier ones: after
           Elkerdawy et al., 2020 (arXiv:2011.14260)
influence  how far a block changes its input: Men et al., 2024 (ShortGPT, arXiv:2403.03853)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.budget import Budget
from solution.compress.coupling.equality import agreed
from solution.compress.coupling.inputs import AnyNetStep
from solution.compress.layers import module_at, savings
from solution.compress.residual import Block, ResidualStage, stages_of, taken_out, without
from solution.contracts import Batches, InputError, Plan, StepContext, copied
from solution.evaluate.classify import mean_loss
from solution.evaluate.cost import macs, params
from solution.graph import as_judged, images_for, modules_at, observe
from solution.text import columns

RANKINGS = ("dev", "influence", "last")


@dataclass(frozen=True, kw_only=True)
class LayerPlan(Plan):
    """Which blocks leave.

    removed  module paths
    units    stage path -> (blocks before, blocks after)
    saves    {"macs": (before, after), "params": (before, after)}
    blocks   removed block -> (MACs of one image that it saves, parameters that it saves)
    listed   removed blocks whose place a `PassThrough` takes
    verified error of the cut net, against the full one whose blocks hand on what they get; None when nobody looked
    """

    kind: ClassVar[str] = "prune_layers"
    removed: tuple[str, ...]
    units: dict[str, tuple[int, int]]
    saves: dict[str, tuple[int, int]]
    blocks: dict[str, tuple[int, int]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    verified: float | None = None

    def cut(self, model: nn.Module) -> nn.Module:
        """Take the blocks out. `InputError` names a block that this net does not have, or has in another size."""
        for path, (_, expected) in self.blocks.items():
            actual = params(module_at(model, path, f"block {path!r}"))
            if actual != expected:
                raise InputError(
                    f"this plan was made for another net: block {path!r} has {actual:,} parameters here, "
                    f"{expected:,} in the plan"
                )
        return without(model, self.removed, self.listed)

    def __str__(self) -> str:
        rows = [("stage", "blocks", "removed")]
        for stage, (before, after) in self.units.items():
            gone = [path.rpartition(".")[2] for path in self.removed if path.rpartition(".")[0] == stage]
            rows.append((stage, f"{before} -> {after}", ", ".join(gone) or "-"))
        saved = [f"{path} saves {macs:,} MACs, {params:,} parameters" for path, (macs, params) in self.blocks.items()]
        proof = [] if self.verified is None else [f"verified: outputs agree to {self.verified:.0e}"]
        return "\n".join([*columns(rows, left=(0, 1, 2)), *saved, *savings(self.saves), *proof])


@dataclass(frozen=True, kw_only=True)
class PruneLayers(AnyNetStep):
    """Take whole blocks out. Give one of `units`, `count` and `macs`.

    units    blocks to leave in each stage, such as (2, 5, 2)
    count    or: how many blocks to take out, wherever the ranking puts them
    macs     or: what the cut net may cost at most (`Budget`: "70%", "12M"), in the competition's convention. Never
             exceeded; blocks that the budget has room for stay
    ranking  "dev": those whose removal raises the loss on the dev split least, one after another;
             "influence": those that change their input least, on calibration batches or the example alone;
             "last": the last ones
    verify   run the cut net and the full one whose blocks hand on what they get on the example: they must be equal
    """

    currency: ClassVar[str | None] = "macs"
    recoverable: ClassVar[bool] = True
    foreseen = True
    units: tuple[int, ...] | None = None
    count: int | None = None
    macs: str | int | None = None
    ranking: str = "dev"
    verify: bool = True

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("units", "count", "macs")}
        if sum(value is not None for value in given.values()) != 1:
            got = ", ".join(f"{name}={value}" for name, value in given.items())
            raise InputError(f"give either units or count or macs, got {got}")
        if self.units is not None and (not self.units or min(self.units) < 1):
            raise InputError(f"units must be one or more numbers of at least 1, got {self.units}")
        if self.count is not None and self.count < 1:
            raise InputError(f"count must be at least 1, got {self.count}")
        if self.macs is not None:
            Budget.of(self.macs or 0, "macs")
        if self.ranking not in RANKINGS:
            raise InputError(f"ranking must be one of {', '.join(RANKINGS)}, got {self.ranking!r}")

    @property
    def needs(self) -> tuple[str, ...]:
        """Dev where it ranks the blocks."""
        return ("dev",) if self.ranking == "dev" else ()

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The cut of the last blocks: which blocks of a stage go does not change what is left of it."""
        return dataclasses.replace(self, ranking="last", verify=False).run(model, context)

    def decide(self, model: nn.Module, context: StepContext) -> LayerPlan:
        """Choose the blocks. `InputError` when there are not so many, nothing would go, or the budget is too small."""
        stages = stages_of(model, context.example)
        if not stages:
            raise InputError(
                f"{type(model).__name__} has no block that it can do without, so nothing would be taken out: a block "
                "returns its input together with what it computes, and is one of several in a Sequential or ModuleList"
            )
        full = macs(model, context.example)
        removed = self._removed(model, context, stages, full)
        smaller = taken_out(model, removed)
        plan = LayerPlan(
            removed=tuple(block.path for block in removed),
            units={s.path: (s.size, s.size - sum(block in removed for block in s.blocks)) for s in stages},
            saves={
                "macs": (full, macs(smaller, context.example)),
                "params": (params(model), params(smaller)),
            },
            blocks={block.path: (block.macs, block.params) for block in removed},
            listed=tuple(block.path for block in removed if block.listed),
        )
        if not self.verify:
            return plan

        return dataclasses.replace(
            plan, verified=agreed(model, plan.apply, context.example, within=partial(_handing_on, plan.removed))
        )

    def _removed(
        self, model: nn.Module, context: StepContext, stages: Sequence[ResidualStage], full: int
    ) -> list[Block]:
        """The blocks that go, in order of execution. full: MACs of the net."""
        blocks = [block for stage in stages for block in stage.blocks]
        saving = 0.0
        if self.units is not None:
            open_blocks = _by_stage(stages, self.units)
        elif self.count is not None:
            if self.count > len(blocks):
                raise InputError(
                    f"cannot take out {self.count} blocks: only {len(blocks)} keep the shape of their input"
                )
            open_blocks = _until(lambda gone: len(gone) == self.count, blocks)
        else:
            saving = _saving(Budget.of(self.macs or 0, "macs").limit(full), full, blocks)
            open_blocks = _until(lambda gone: _macs(gone) >= saving, blocks)
        gone: list[Block] = []
        pick = self._pick(model, blocks, context)
        while candidates := open_blocks(gone):
            gone.append(pick(gone, candidates))
        if self.macs is not None:  # blocks that the budget has room for come back, those missed most first
            for block in reversed(tuple(gone)):
                if _macs(gone) - block.macs >= saving:
                    gone.remove(block)
        return [block for block in blocks if block in gone]

    def _pick(self, model: nn.Module, blocks: Sequence[Block], context: StepContext) -> Pick:
        if self.ranking == "dev":
            return least_harm(model, context)
        if self.ranking == "influence":
            return least_influence(model, blocks, context)
        return lambda _gone, candidates: candidates[-1]


def _handing_on(paths: Sequence[str], net: nn.Module) -> AbstractContextManager[None]:
    """Inside, the blocks of `net` at `paths` return what they get."""
    entered: dict[str, Tensor] = {}

    def before(path: str, _module: nn.Module, inputs: tuple[Any, ...], _named: dict[str, Any]) -> None:
        entered[path] = inputs[0].clone()  # the block may work in place

    return observe(modules_at(net, paths), before=before, after=lambda path, _module, _inputs, _output: entered[path])


Open = Callable[[Sequence[Block]], Sequence[Block]]
"""Blocks that are gone -> blocks of which one more must go, in order of execution; none when enough are gone."""


def _until(enough: Callable[[Sequence[Block]], bool], blocks: Sequence[Block]) -> Open:
    return lambda gone: [] if enough(gone) else [block for block in blocks if block not in gone]


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


Pick = Callable[[Sequence[Block], Sequence[Block]], Block]
"""(Blocks that are gone, blocks of which one must go) -> that one."""


def least_harm(model: nn.Module, context: StepContext) -> Pick:
    """Pick the block without which the loss on the dev split is lowest. Every pick measures every candidate."""
    batches = list(context.need("dev", 'ranking "dev"'))
    probe = copied(model).eval().to(context.device)

    def pick(gone: Sequence[Block], candidates: Sequence[Block]) -> Block:
        losses = {block: mean_loss(taken_out(probe, [*gone, block]), batches) for block in candidates}
        block = _least(losses)
        context.log(f"without {block.path}: loss {losses[block]:.3f} on the dev split")
        return block

    return pick


def least_influence(model: nn.Module, blocks: Sequence[Block], context: StepContext) -> Pick:
    """Pick the block of lowest influence on the calibration batches, or on the example when there are none."""
    batches = context.calibration if context.calibration is not None else [(context.example, torch.empty(0))]
    influence = block_influence(copied(model).to(context.device), blocks, batches)

    def pick(_gone: Sequence[Block], candidates: Sequence[Block]) -> Block:
        block = _least({block: influence[block] for block in candidates})
        context.log(f"without {block.path}: influence {influence[block]:.4f}")
        return block

    return pick


def _least(scores: Mapping[Block, float]) -> Block:
    for block, score in scores.items():
        if not math.isfinite(score):
            raise InputError(
                f"blocks cannot be ranked: {block.path} has the score {score}. The weights hold NaN or infinity, or "
                "the images do"
            )
    return min(scores, key=scores.__getitem__)


def block_influence(model: nn.Module, blocks: Sequence[Block], batches: Batches) -> dict[Block, float]:
    """1 - cosine similarity of what enters and leaves each block, mean over images: 0 changes nothing.

    The similarity is taken over all values of an image, so that it does not matter along which axis channels lie.
    """
    total, images = {block.path: 0.0 for block in blocks}, 0
    entered: dict[str, Tensor] = {}

    def before(path: str, _module: nn.Module, inputs: tuple[Any, ...], _named: dict[str, Any]) -> None:
        entered[path] = inputs[0].flatten(1).clone()  # the block may work in place

    def after(path: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        alike = F.cosine_similarity(entered.pop(path).double(), output.flatten(1).double(), dim=1)  # (B,)
        total[path] += float((1 - alike).sum())

    with as_judged(model), observe(modules_at(model, total), before=before, after=after):
        for x, _ in batches:
            model(images_for(model, x))
            images += len(x)
    return {block: total[block.path] / images for block in blocks}
