"""Every kind of plan by its name in a checkpoint."""

from __future__ import annotations

from solution.compress.cluster import ClusterPlan
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.decompose import DecomposePlan
from solution.compress.fold_norms import FoldPlan
from solution.compress.prune_layers import LayerPlan
from solution.compress.prune_weights import SparsityPlan
from solution.compress.quantization.plan import ConvertPlan, QuantizePlan
from solution.contracts import Plan
from solution.train.assist import AssistPlan

PLANS: dict[str, type[Plan]] = {
    plan.kind: plan
    for plan in (
        LayerPlan,
        AssistPlan,
        ChannelPlan,
        SparsityPlan,
        DecomposePlan,
        ClusterPlan,
        QuantizePlan,
        ConvertPlan,
        FoldPlan,
    )
}
