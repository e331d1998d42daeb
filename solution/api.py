"""The public face: what ``import solution as fw`` offers; `solution.__getattr__` imports it on first use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from solution import pipeline
from solution.budget import Budget
from solution.checkpoint import Header, header_of
from solution.compress.channels.gradual import PruneGradually
from solution.compress.channels.group_penalty import GroupPenalty
from solution.compress.channels.step import PruneChannels
from solution.compress.cluster import Cluster
from solution.compress.decompose import Decompose
from solution.compress.fold_norms import FoldNorms
from solution.compress.prune_layers import PruneLayers
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Convert, Quantize
from solution.contracts import (
    InputError,
    Plan,
    Recipe,
    Row,
    Stage,
    Step,
    StepContext,
    plans_of,
)
from solution.data.loaders import Data, Loaders
from solution.evaluate.classify import evaluate
from solution.export import files
from solution.export.exporter import export
from solution.registry import PLANS
from solution.runtime import check_readable, write_text
from solution.train.distillation import Assist, Distill
from solution.train.pretraining import Autoencode, Pretrain, Start, Unchanged
from solution.train.step import Train, TrainDetector

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
    "plans_of",
    "read_header",
    "run",
    "save",
    "save_plan",
]


def save(net: nn.Module, path: str | Path, **about: Any) -> None:
    """Write weights and plans of any module, whole or not at all: a packed file when `path` ends in .packed.

    about  what is known of the net besides: classes, mean, std, size, data, figures (see `Header`)
    """
    files.save(Path(path), net, header_of(net, **about))


def load(path: str | Path, into: nn.Module | None = None) -> nn.Module:
    """The net of a file that `save` or a command wrote, in evaluation mode, bit for bit.

    into  for a net of your own: a fresh module of the same code, as it was before the first step. It is left
          untouched: its plans are replayed on a copy, which gets the weights
    """
    return files.load(Path(path), into)[0]


def read_header(path: str | Path) -> Header:
    """What a file says besides its weights: classes, normalization, plans, figures. Reads no weights."""
    return files.read_header(Path(path))


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as JSON, whole or not at all."""
    write_text(Path(path), json.dumps(plan.to_fields(), indent=1) + "\n")


def load_plan(path: str | Path) -> Plan:
    """The plan that `save_plan` or a run wrote. ``plan.apply(net)`` cuts a net of the same shape as the first one."""
    path = Path(path)
    check_readable(path, "plan, such as runs/x/after/plan.json")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return PLANS[fields["kind"]].from_fields(fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} holds no plan ({error!r}): write one with fw.save_plan(plan, path)") from error


def datasets(path: str | Path | None = None, *, seed: int = 0, **settings: Any) -> Loaders:
    """The train, dev, val and calibration batches of a data set: ``fw.datasets("photos.zip", size=80)``.

    path      folder, archive, table or array (input/README.md), or a name of torchvision's; None takes the demo data
    settings  as in `Data`: size, batch_size, augment, ...

    Train learns, dev decides, val judges: no step may look at val.
    """
    return Data(path=None if path is None else str(path), **settings).open(seed=seed)


def run(recipe: Recipe, out: str | Path | None = None, **options: Any) -> list[Row]:
    """Run a recipe, one row a stage. Everything it makes lies in `out`, by default runs/<name of the recipe>.

    options  device, resume, measure_later, log, as in `solution.pipeline.run`
    """
    return list(pipeline.run(recipe, Path("runs") / recipe.name if out is None else Path(out), **options))
