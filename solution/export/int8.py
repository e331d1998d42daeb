"""Which layers stay in float when a net becomes int8: those without which its outputs would be clearly farther off."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.compress.quantization.forms import keep_inputs_float
from solution.contracts import Batches, InputError
from solution.data.loaders import Loaders
from solution.evaluate.classify import Predict, predictor
from solution.export.parity import COMPARED
from solution.formats.base import Format, depthwise_layers, first_and_last_layers
from solution.formats.exported import Exported, Metadata
from solution.losses.distillation import divergence

_NAMES_SHOWN = 3
_CELLS = 16
"""So many cells a side stand for the pixels of a picture."""
_CLEARLY_NEARER = 0.002
"""A choice that keeps more layers in float must come so much nearer to the net's outputs, in nats."""


def quantized(
    target: Format, net: nn.Module, metadata: Metadata, loaders: Loaders | None, log: Callable[[str], None]
) -> Any:
    """The int8 graph whose outputs on the dev split are nearest to the net's, of those with more layers in float.

    Macro F1 would leave that to chance: rounding makes as many predictions right as wrong.
    """
    images = _calibration(loaders, log)
    assert loaders is not None
    net = copy.deepcopy(net)
    if keep_inputs_float(net):
        log("inputs that the net rounds itself are rounded by the int8 graph alone")  # or they would be, twice
    start = target.base(net, torch.cat([images[0], images[0]]))
    if COMPARED[metadata.task].fine_outputs:
        return target.quantized(start, images, target.depthwise(start), fine_outputs=True)
    return _nearest(target, start, (images, list(_choices(net, target, start)), predictor(net)), metadata, loaders, log)


def quantized_file(
    target: Format, start: Any, exported: Exported, loaders: Loaders | None, log: Callable[[str], None]
) -> Any:
    """The same of a graph of others, `start`, which is that of the opened file `exported`."""
    images = _calibration(loaders, log)
    assert loaders is not None
    depthwise, ends = target.depthwise(start), target.first_and_last_layers(start)
    layers = [depthwise, list(dict.fromkeys([*depthwise, *ends]))]
    choices = [(some, some) for some in layers]
    return _nearest(target, start, (images, choices, exported), exported.metadata, loaders, log)


def _calibration(loaders: Loaders | None, log: Callable[[str], None]) -> list[Tensor]:
    """The calibration pictures, each (1, 3, S, S)."""
    if loaders is None or loaders.calibration is None:
        raise InputError("int8 is calibrated on photos: name them with --data, or data=")
    images = [image[None].contiguous() for batch, _ in loaders.calibration for image in batch]
    log(f"int8 is calibrated on {len(images)} images of train")
    return images


def _nearest(
    target: Format,
    start: Any,
    given: tuple[list[Tensor], list[tuple[list[str], list[str]]], Predict],
    metadata: Metadata,
    loaders: Loaders,
    log: Callable[[str], None],
) -> Any:
    """Of the choices of layers in float the nearest graph; `given` are calibration pictures, choices, net."""
    if loaders.dev is None:
        raise InputError("int8 decides on the dev split which layers stay in float, and these data have none")
    images, choices, net = given
    logits = _logits(net, loaders.dev)
    best, nearest = None, math.inf
    for names, layers in choices:
        graph = target.quantized(copy.deepcopy(start), images, layers, fine_outputs=False)
        away = _away(target, graph, metadata, loaders.dev, logits)
        log(f"int8, in float {_listed(names)}: KL divergence {away:.4f} from the net's outputs, dev split")
        if away < nearest - _CLEARLY_NEARER:
            best, nearest = graph, away
    if best is None:
        raise InputError("int8 gives NaN or infinity: export with fp16, or quantize the net in a recipe")
    return best


def _choices(net: nn.Module, target: Format, start: Any) -> Iterator[tuple[list[str], list[str]]]:
    """What stays in float, by the net's names and by the graph's. Depthwise layers are slower in int8 than in float."""
    names, layers = depthwise_layers(net), target.depthwise(start)
    ends = target.first_and_last_layers(start)
    yield names if layers else [], layers
    if ends:  # a format that has none leaves nothing in float
        yield list(dict.fromkeys([*names, *first_and_last_layers(net)])), list(dict.fromkeys([*layers, *ends]))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN]) or "nothing"
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _away(target: Format, graph: Any, metadata: Metadata, batches: Batches, logits: Tensor) -> float:
    """How far the graph's outputs in its runtime lie from `logits` (N, num_classes), in nats."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"choice{target.suffix}")
        target.write(graph, metadata, path)
        return float(divergence(_logits(target.open(path, task=metadata.task), batches), logits))


def _logits(predict: Predict, batches: Batches) -> Tensor:
    with torch.inference_mode():
        return torch.cat([_rows(predict(images)) for images, _ in batches])


def _rows(logits: Tensor) -> Tensor:
    """Logits (B, C), or of pixels (B, C, H, W) in cells, as rows (N, C)."""
    if logits.dim() == 2:
        return logits
    cells = F.adaptive_avg_pool2d(logits.float(), min(_CELLS, *logits.shape[2:]))
    return cells.movedim(1, -1).flatten(0, -2)
