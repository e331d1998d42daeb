"""A model and an example in, its coupling out; and the same for the model at other sizes (its skeleton)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch

import numpy as np
import torch
from torch import Tensor, nn

from solution.compress.coupling.adapters import adapted_attributes
from solution.compress.coupling.components import NO_COMPONENT, Coupling, components_of
from solution.compress.coupling.cutting import attributes_of, cut_tensors, set_attributes
from solution.compress.coupling.ids import Ledger
from solution.compress.coupling.rules import apply_rule
from solution.compress.coupling.tracing import Trace, TraceError, hollow_copy, named_tensors, shapes_only, trace
from solution.compress.coupling.walk import walk

Sizes = dict[tuple[str, int], np.ndarray]
"""(Tensor, axis) -> which positions a skeleton has; only their number in each group matters."""


def every_output(_position: int) -> bool:
    """All outputs matter."""
    return True


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is looked at, and what the caller wants left alone.

    example       an input batch
    protected     glob patterns of modules whose own outputs keep all channels ("stem.*", "fc")
    keeps_output  position among the flattened outputs -> whether it must keep its shape
    """

    model: nn.Module
    example: Tensor
    protected: tuple[str, ...] = ()
    keeps_output: Callable[[int], bool] = every_output


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The coupling of a subject, with the traces that it was read from and the sizes set beside the tensors."""

    coupling: Coupling
    traces: tuple[Trace, ...]
    attributes: dict[str, dict[str, int | tuple[int, ...]]]
    unreached: tuple[str, ...]


def analyse(subject: Subject, sizes: Sizes | None = None, before: Analysis | None = None) -> Analysis:
    """Trace the subject and find its coupling.

    sizes, before  look at a skeleton instead: the model cut to `sizes`, whose full form was analysed `before`.
    Raises `TraceError` when the forward does not run.
    """
    with shapes_only() as mode:
        hollow = hollow_copy(subject.model, mode)
        attributes = _shrink(hollow, sizes, before) if sizes is not None and before is not None else {}
        traces = _traces(hollow, subject.example, mode, before)
    ledger = Ledger()
    for one in traces:
        walk(one, ledger, apply_rule, subject.keeps_output)
    known = None if before is None else {side.tensor: side.axis for side in before.coupling.sides}
    coupling = _protect(components_of(ledger, known), subject.protected)
    return Analysis(coupling=coupling, traces=traces, attributes=attributes, unreached=_unreached(traces))


def _traces(hollow: nn.Module, example: Tensor, mode: object, before: Analysis | None) -> tuple[Trace, ...]:
    """The eval pass, and the train pass when it alone reaches some parameters (auxiliary heads)."""
    traces = [trace(hollow.eval(), example, mode)]
    two_passes = traces[0].unused() if before is None else len(before.traces) > 1
    if two_passes:
        try:
            traces.append(trace(hollow.train(), torch.cat([example, example]), mode))
        except TraceError:
            if before is not None:
                raise
    return tuple(traces)


def _unreached(traces: tuple[Trace, ...]) -> tuple[str, ...]:
    unused = [set(one.unused()) for one in traces]
    return tuple(sorted(set.intersection(*unused)))


def _shrink(hollow: nn.Module, sizes: Sizes, before: Analysis) -> dict[str, dict[str, int | tuple[int, ...]]]:
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(hollow).items()}
    cuts: dict[str, list[tuple[int, int, list[int]]]] = {}
    for side in before.coupling.sides:
        positions = sizes.get(side.key)
        if positions is not None and side.tensor in shapes:
            cuts.setdefault(side.tensor, []).append((side.axis, side.groups, positions.tolist()))
    cut_tensors(hollow, cuts)
    attributes = attributes_of(hollow)
    set_attributes(hollow, attributes)
    for path, values in adapted_attributes(hollow, shapes).items():
        attributes.setdefault(path, {}).update(values)
    set_attributes(hollow, attributes)
    return attributes


def _protect(coupling: Coupling, patterns: tuple[str, ...]) -> Coupling:
    """Mark what the named modules make as kept."""
    for side in coupling.sides:
        if side.role == "out" and any(fnmatch(side.tensor.rpartition(".")[0], pattern) for pattern in patterns):
            for component in np.unique(side.component).tolist():
                coupling.reason.setdefault(component, "it is protected")
    return coupling


def skeleton_sizes(coupling: Coupling, stays: np.ndarray) -> Sizes:
    """The positions along every axis whose components (components,) stay."""
    return {
        side.key: np.flatnonzero(stays[side.component])
        for side in coupling.sides
        if side.role != "output" and not stays[side.component].all()
    }


def atoms_of_tensors(coupling: Coupling, chosen: Callable[[str, str], bool]) -> set[int]:
    """Atoms that touch a tensor for which ``chosen(name, role)`` holds."""
    found: set[int] = set()
    for side in coupling.sides:
        if chosen(side.tensor, side.role):
            found.update(np.unique(coupling.atom[side.component]).tolist())
    return found - {NO_COMPONENT}
