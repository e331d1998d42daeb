"""What a net costs and what it is worth, in one call."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from solution.contracts import Batches, Example, InputError
from solution.evaluate.classify import classify, predictor
from solution.evaluate.cost import macs, params


def evaluate(net: nn.Module, batches: Batches | None = None, example: Example | None = None) -> dict[str, float]:
    """What a classifier costs and is worth: {"macs", "params"} of one image, {"f1", "accuracy", ...} on batches.

    example  one input batch, for the cost; by default the first images of `batches`
    """
    if batches is None and example is None:
        raise InputError("evaluate needs batches, for quality, or an example, for cost alone: evaluate(net, loader)")
    if example is None:
        example = next(iter(batches))[0][:2]
    quality: Mapping[str, float] = {}
    if batches is not None:
        quality = classify(predictor(net, str(next(net.parameters()).device)), batches).quality()
    return {"macs": macs(net, example), "params": params(net), **quality}
