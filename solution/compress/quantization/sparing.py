"""Layers that are better left in float, found by measurement on the choose split, not by custom."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from solution.compress.block_ranking import mean_loss
from solution.compress.quantization.layers import is_depthwise
from solution.compress.quantization.plan import QuantizePlan

GROUPS = ("first", "last", "depthwise")
WORTH = 0.005
"""Mean cross-entropy that leaving a group in float must save; less is within what another choose split would say."""


def groups_of(model: nn.Module, plan: QuantizePlan) -> dict[str, tuple[str, ...]]:
    """{group: its layers}, of those that the plan quantizes, which stand in order of execution."""
    paths = tuple(plan.schemes)
    depthwise = tuple(path for path in paths if is_depthwise(model.get_submodule(path)))
    return {"first": paths[:1], "last": paths[-1:], "depthwise": depthwise}


def spare(
    plan: QuantizePlan,
    model: nn.Module,
    wanted: tuple[str, ...],
    batches: list[tuple[Tensor, Tensor]],
    say: Callable[[str], None],
) -> QuantizePlan:
    """`plan` without those groups of `wanted` that are better left in float: one after another, each knows the last."""
    least = _loss(plan, model, batches)
    for group, members in groups_of(model, plan).items():
        layers = tuple(path for path in members if path in plan.schemes)
        if group not in wanted or not layers or len(layers) == len(plan.schemes):
            continue
        other = plan.without(layers, f"better so on the choose split ({group})")
        loss = _loss(other, model, batches)
        say(f"{group} in float: loss {loss:.4f} on the choose split, quantized {least:.4f}")
        if loss < least - WORTH:
            plan, least = other, loss
    return plan


def _loss(plan: QuantizePlan, model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    return mean_loss(plan.finished().cut(copy.deepcopy(model)).eval(), batches)
