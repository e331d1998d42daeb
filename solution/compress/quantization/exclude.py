"""Layers that are better left in float, found by measurement on the dev split, not by custom."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from solution.compress.quantization.layers import is_depthwise
from solution.compress.quantization.plan import QuantizePlan

GROUPS = ("first", "last", "depthwise")
WORTH = 0.005
"""Mean cross-entropy that leaving a group in float must save; less is within what another dev split would say."""


def groups_of(model: nn.Module, plan: QuantizePlan) -> dict[str, tuple[str, ...]]:
    """{group: its layers}, of those that the plan quantizes, which stand in order of execution."""
    paths = tuple(plan.schemes)
    depthwise = tuple(path for path in paths if is_depthwise(model.get_submodule(path)))
    return {"first": paths[:1], "last": paths[-1:], "depthwise": depthwise}


def spare(
    plan: QuantizePlan,
    model: nn.Module,
    wanted: tuple[str, ...],
    loss_of: Callable[[QuantizePlan], float],
    log: Callable[[str], None],
) -> QuantizePlan:
    """`plan` without those groups of `wanted` that are better left in float: one after another, each knows the last.

    loss_of  mean cross-entropy on the dev split of the net that a plan would ship
    """
    least = loss_of(plan)
    for group, members in groups_of(model, plan).items():
        layers = tuple(path for path in members if path in plan.schemes)
        if group not in wanted or not layers or len(layers) == len(plan.schemes):
            continue
        other = plan.without(layers, f"better so on the dev split ({group})")
        loss = loss_of(other)
        log(f"{group} in float: loss {loss:.4f} on the dev split, quantized {least:.4f}")
        if loss < least - WORTH:
            plan, least = other, loss
    return plan
