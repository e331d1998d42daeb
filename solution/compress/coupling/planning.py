"""A fit and the channels chosen for it, written down as a plan."""

from __future__ import annotations

from math import prod

import numpy as np

from solution.compress.coupling.analysis import Analysis
from solution.compress.coupling.components import Side
from solution.compress.coupling.fitting import SPARE, Fit
from solution.compress.coupling.macs import layer_macs
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.wiring import choose, selections


def written_plan(full: Analysis, fitted: Fit, score: np.ndarray) -> ChannelPlan:
    """The plan that keeps the channels of highest `score` (components,) at the sizes of `fitted`."""
    skeleton = fitted.skeleton.coupling
    chosen = choose(full.coupling, skeleton, fitted.replaces, score)
    kept = selections(full.coupling, skeleton, chosen, fitted.replaces == SPARE)
    shapes = _shapes(full)
    numbers: dict[tuple[int, ...], int] = {}
    tensors: dict[str, tuple[tuple[int, int, int], ...]] = {}
    for (name, axis), positions in sorted(kept.items()):
        if name in shapes:
            number = numbers.setdefault(tuple(positions.tolist()), len(numbers))
            groups = full.coupling.side(name, axis).groups
            tensors[name] = (*tensors.get(name, ()), (axis, groups, number))
    return ChannelPlan(
        selections=tuple(numbers),
        tensors=tensors,
        shapes={name: shapes[name] for name in tensors},
        attributes=fitted.skeleton.attributes,
        layers=_layers(full, fitted, kept),
        saves={"macs": _macs(full, fitted), "params": (_params(full), _params(fitted.skeleton))},
        kept=_kept(full, fitted, kept),
    )


def _shapes(analysis: Analysis) -> dict[str, tuple[int, ...]]:
    trace = analysis.traces[0]
    return dict(zip(trace.tensors, trace.shapes, strict=False))


def _params(analysis: Analysis) -> int:
    return sum(prod(shape) for name, shape in _shapes(analysis).items() if name in analysis.traces[0].parameters)


def _macs(full: Analysis, fitted: Fit) -> tuple[int, int]:
    before, after = (sum(layer_macs(analysis.traces[0]).values()) for analysis in (full, fitted.skeleton))
    return before, after


def _makers(full: Analysis) -> list[Side]:
    return [side for side in full.coupling.sides if side.role == "out"]


def _layers(
    full: Analysis, fitted: Fit, kept: dict[tuple[str, int], np.ndarray]
) -> tuple[tuple[str, int, int, int, int], ...]:
    before, after = layer_macs(full.traces[0]), layer_macs(fitted.skeleton.traces[0])
    return tuple(
        (
            _layer(side.tensor),
            len(side.component),
            len(kept[side.key]),
            before.get(side.tensor, 0),
            after.get(side.tensor, 0),
        )
        for side in _makers(full)
        if side.key in kept
    )


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _kept(full: Analysis, fitted: Fit, kept: dict[tuple[str, int], np.ndarray]) -> dict[str, str]:
    """Why each layer that lost no channel was kept whole."""
    coupling, reasons = full.coupling, {}
    for side in _makers(full):
        if side.key in kept:
            continue
        component = int(side.component[0])
        frozen = fitted.frozen.get(int(coupling.atom[component]))
        reasons[_layer(side.tensor)] = coupling.reason.get(component) or frozen or "it has no channel to spare"
    return {**reasons, **dict.fromkeys(map(_layer, full.unreached), "the forward never reads it")}
