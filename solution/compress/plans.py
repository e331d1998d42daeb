"""Every kind of plan by its name in a checkpoint."""

from __future__ import annotations

from solution.compress.prune_layers import LayerPlan
from solution.contracts import Plan

PLANS: dict[str, type[Plan]] = {LayerPlan.kind: LayerPlan}
