"""Featherweight: image models made small without losing what they know.

    import solution as fw
    smaller = fw.PruneChannels(macs="50%")(net, torch.zeros(1, 3, 224, 224))

`solution.api` holds what stands here; it is imported when a name is first used, so that the command line can answer
before PyTorch is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solution.runtime import turn_off_telemetry

if TYPE_CHECKING:  # for editors and type checkers: `api` holds nothing else
    from solution.api import *

turn_off_telemetry()

__version__ = "0.2.0"
__all__ = [
    "Assist",
    "Autoencode",
    "Budget",
    "Cluster",
    "Convert",
    "Data",
    "Decompose",
    "Distill",
    "FoldNorms",
    "GroupPenalty",
    "InputError",
    "Plan",
    "Pretrain",
    "PruneChannels",
    "PruneGradually",
    "PruneLayers",
    "PruneWeights",
    "Quantize",
    "Recipe",
    "Recover",
    "Row",
    "Stage",
    "Start",
    "Step",
    "StepContext",
    "Train",
    "TrainDetector",
    "Unchanged",
    "datasets",
    "evaluate",
    "export",
    "load",
    "load_plan",
    "open_model",
    "plans_of",
    "read_header",
    "run",
    "save",
    "save_plan",
    "shrink",
]


if not TYPE_CHECKING:  # or no checker would miss a misspelt name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from solution import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
