"""How a net is made smaller: each method a step in a file of its own.

    from solution.compress import PruneChannels
    from solution.contracts import Given
    smaller = PruneChannels(ratio=0.5)(model, StepContext(example=x))

prune_channels   fewer channels in every layer, by a share or down to a budget (coupling, importance)
prune_gradually  the same in stages, with training between
group_penalty    training that pulls whole channels towards zero before a cut
prune_layers     whole blocks leave
prune_weights    single weights become zero
decompose        layers of low rank
cluster          weights shared by codebooks
quantize         weights and activations in 8 bits or fewer
fold_norms       batch norms go into the convolutions before them
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """The step called `name`. Its file is read only when it is asked for: some take a second to import."""
    match name:
        case "PruneChannels":
            from solution.compress.prune_channels import PruneChannels as Found
        case "PruneGradually":
            from solution.compress.prune_gradually import PruneGradually as Found
        case "GroupPenalty":
            from solution.compress.group_penalty import GroupPenalty as Found
        case "PruneLayers":
            from solution.compress.prune_layers import PruneLayers as Found
        case "PruneWeights":
            from solution.compress.prune_weights import PruneWeights as Found
        case "Decompose":
            from solution.compress.decompose import Decompose as Found
        case "Cluster":
            from solution.compress.cluster import Cluster as Found
        case "Quantize":
            from solution.compress.quantize import Quantize as Found
        case "FoldNorms":
            from solution.compress.fold_norms import FoldNorms as Found
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return Found
