"""Layer pruning: whole blocks leave a net, the rest keeps its weights.

A block can go when it keeps the shape of its input: the units of a stage but its first, the residual blocks of a
ResNet. Which ones go is measured (the blocks whose removal hurts least on the choose split, one after another, so that
each choice knows the earlier ones; after Elkerdawy et al., 2020, arXiv:2011.14260) or simply the last ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import Batches, Given, InputError, Plan, StructuralStep
from solution.evaluate.cost import macs, params

RANKINGS = ("choose", "last")


def mean_loss(model: nn.Module, batches: Batches) -> float:
    """Mean cross-entropy over all images: smoother than a count of hits, so better for ranking."""
    total, images = 0.0, 0
    with torch.inference_mode():
        for x, labels in batches:
            total += float(F.cross_entropy(model(x), labels, reduction="sum"))
            images += len(labels)
    return total / images


def stages_of(model: nn.Module, example: Tensor) -> dict[str, tuple[str, ...]]:
    """Every stage (an `nn.Sequential` of blocks) with the names of its blocks that may go, in order of execution.

    A stage that has no such block left is listed with none.
    """
    shapes = _shapes(model, example)
    stages = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential) and _is_stage(module):
            paths = [f"{path}.{name}" if path else name for name, _ in module.named_children()]
            stages[path] = tuple(block for block in paths if shapes.get(block, False))
    return stages


def _is_stage(module: nn.Sequential) -> bool:
    children = list(module.children())
    blocks = [child for child in children if sum(1 for leaf in child.modules() if _has_weight(leaf)) > 1]
    return bool(blocks) and not any(isinstance(child, nn.Sequential) for child in children)


def _has_weight(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _shapes(model: nn.Module, example: Tensor) -> dict[str, bool]:
    """Module path -> does it have weights and keep the shape of its one input."""
    kept: dict[str, bool] = {}

    def hook(path: str) -> object:
        def remember_shape(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            plain = len(inputs) == 1 and isinstance(output, Tensor) and isinstance(inputs[0], Tensor)
            weights = any(True for _ in module.parameters())
            kept[path] = plain and weights and inputs[0].shape == output.shape

        return remember_shape

    probe = copy.deepcopy(model).eval()
    for path, module in probe.named_modules():
        module.register_forward_hook(hook(path))
    with torch.inference_mode():
        probe(example)
    return kept


def without(model: nn.Module, blocks: Iterable[str]) -> nn.Module:
    """Take `blocks` out of `model`, in place. `InputError` for a name that it does not have."""
    for path in blocks:
        stage_path, _, name = path.rpartition(".")
        try:
            stage = model.get_submodule(stage_path)
            stage.get_submodule(name)
        except AttributeError as error:
            raise InputError(f"this plan was made for another net: there is no block {path!r}") from error
        del stage._modules[name]
    return model


@dataclass(frozen=True, kw_only=True)
class LayerPlan(Plan):
    """Which blocks leave.

    removed  module paths
    units    stage path -> (blocks before, blocks after)
    saves    {"macs": (before, after), "params": (before, after)}
    """

    kind: ClassVar[str] = "prune_layers"
    removed: tuple[str, ...]
    units: dict[str, tuple[int, int]]
    saves: dict[str, tuple[int, int]]

    def cut(self, model: nn.Module) -> nn.Module:
        """Take the blocks out."""
        return without(model, self.removed)

    def __str__(self) -> str:
        width = max(len(stage) for stage in self.units)
        lines = [f"{'stage':<{width}}  blocks  removed"]
        for stage, (before, after) in self.units.items():
            gone = [path.rpartition(".")[2] for path in self.removed if path.rpartition(".")[0] == stage]
            lines.append(f"{stage:<{width}}  {f'{before} -> {after}':<6}  {', '.join(gone) or '-'}")
        lines += [
            f"{name}: {before:,} -> {after:,} ({after / before - 1:+.1%})"
            for name, (before, after) in self.saves.items()
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class PruneLayers(StructuralStep):
    """Take whole blocks out.

    units    blocks to leave in each stage, such as (2, 5, 2)
    count    or: how many blocks to take out, wherever it hurts least
    ranking  "choose": those whose removal raises the loss on the choose split least; "last": the last of a stage
    """

    currency: ClassVar[str | None] = "macs"
    units: tuple[int, ...] | None = None
    count: int | None = None
    ranking: str = "choose"

    def __post_init__(self) -> None:
        if (self.units is None) == (self.count is None):
            raise InputError(f"give either units or count, got units={self.units} and count={self.count}")
        if self.count is not None and self.count < 1:
            raise InputError(f"count must be at least 1, got {self.count}")
        if self.ranking not in RANKINGS:
            raise InputError(f"ranking must be one of {', '.join(RANKINGS)}, got {self.ranking!r}")

    def plan(self, model: nn.Module, given: Given) -> LayerPlan:
        """Choose the blocks. `InputError` when there are not so many, or nothing would go."""
        stages = stages_of(model, given.example)
        quota = self._quota(model, stages)
        removed = _last(stages, quota) if self.ranking == "last" else _least_harm(model, stages, quota, given)
        sizes = {stage: len(model.get_submodule(stage)) for stage in stages}
        left = {stage: sizes[stage] - sum(path in removed for path in blocks) for stage, blocks in stages.items()}
        smaller = without(copy.deepcopy(model), removed)
        saves = {
            "macs": (macs(model, given.example), macs(smaller, given.example)),
            "params": (params(model), params(smaller)),
        }
        return LayerPlan(removed=removed, units={s: (sizes[s], left[s]) for s in stages}, saves=saves)

    def _quota(self, model: nn.Module, stages: dict[str, tuple[str, ...]]) -> dict[str, int]:
        """How many blocks each stage must lose; under `count`, the empty key holds how many go in all."""
        free = sum(len(blocks) for blocks in stages.values())
        if self.count is not None:
            if self.count > free:
                raise InputError(f"cannot take out {self.count} blocks: only {free} keep the shape of their input")
            return {"": self.count}
        sizes = [len(model.get_submodule(stage)) for stage in stages]
        if len(sizes) != len(self.units):
            raise InputError(f"units {self.units} names {len(self.units)} stages, the net has {len(sizes)}: {sizes}")
        quota = {stage: size - keep for stage, size, keep in zip(stages, sizes, self.units, strict=True)}
        for stage, size in zip(stages, sizes, strict=True):
            if not 0 <= quota[stage] <= len(stages[stage]):
                least = size - len(stages[stage])
                raise InputError(f"{stage} has {size} blocks and can keep {least} to {size}, not {size - quota[stage]}")
        if not any(quota.values()):
            raise InputError(f"units {self.units} is what the net already has: nothing would be taken out")
        return quota


def _last(stages: dict[str, tuple[str, ...]], quota: dict[str, int]) -> tuple[str, ...]:
    if "" in quota:
        blocks = [block for stage in stages.values() for block in stage]
        return tuple(blocks[len(blocks) - quota[""] :])
    return tuple(block for stage, blocks in stages.items() for block in blocks[len(blocks) - quota[stage] :])


def _least_harm(
    model: nn.Module, stages: dict[str, tuple[str, ...]], quota: dict[str, int], given: Given
) -> tuple[str, ...]:
    """Greedy: of all blocks that may still go, take out the one after which the loss is lowest, and look again."""
    batches = list(given.need("choose", 'ranking "choose"'))
    probe, removed, quota = copy.deepcopy(model).eval(), [], dict(quota)
    while any(quota.values()):
        open_blocks = [
            (stage, block)
            for stage, blocks in stages.items()
            for block in blocks
            if block not in removed and quota.get(stage, quota.get("", 0))
        ]
        losses = {
            (stage, block): mean_loss(without(copy.deepcopy(probe), [block]), batches) for stage, block in open_blocks
        }
        stage, block = min(losses, key=losses.__getitem__)
        given.say(f"without {block}: loss {losses[stage, block]:.3f} on the choose split")
        probe = without(probe, [block])
        removed.append(block)
        quota[stage if stage in quota else ""] -= 1
    return tuple(removed)
