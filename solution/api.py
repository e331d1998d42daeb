"""The public face: what ``import solution as fw`` offers; `solution.__getattr__` imports it on first use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from solution import pipeline
from solution.budget import Budget as Budget
from solution.checkpoint import Header, header_of
from solution.compress.channels.gradual import PruneGradually as PruneGradually
from solution.compress.channels.group_penalty import GroupPenalty as GroupPenalty
from solution.compress.channels.step import PruneChannels as PruneChannels
from solution.compress.cluster import Cluster as Cluster
from solution.compress.decompose import Decompose as Decompose
from solution.compress.fold_norms import FoldNorms as FoldNorms
from solution.compress.prune_layers import PruneLayers as PruneLayers
from solution.compress.prune_weights import PruneWeights as PruneWeights
from solution.compress.quantize import Convert as Convert, Quantize as Quantize
from solution.contracts import (
    InputError as InputError,
    Plan as Plan,
    Recipe as Recipe,
    Row as Row,
    Stage as Stage,
    Step as Step,
    StepContext as StepContext,
    plans_of as plans_of,
)
from solution.data.loaders import Data as Data, Loaders
from solution.evaluate.classify import evaluate as evaluate
from solution.export import files
from solution.export.exporter import export as export
from solution.opening import open_model as open_model
from solution.registry import PLANS
from solution.report.tables import Rows
from solution.runtime import check_readable, write_text
from solution.shrink.run import shrink as shrink
from solution.train.distillation import Assist as Assist, Distill as Distill
from solution.train.pretraining import (
    Autoencode as Autoencode,
    Pretrain as Pretrain,
    Start as Start,
    Unchanged as Unchanged,
)
from solution.train.recover import Recover as Recover
from solution.train.step import Train as Train, TrainDetector as TrainDetector


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
    """What a file holds besides its weights: classes, normalization, plans, figures. Reads no weights."""
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
    return Rows(pipeline.run(recipe, Path("runs") / recipe.name if out is None else Path(out), **options))
