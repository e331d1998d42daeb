"""A model and an example in, its coupling out; and the same for the model at other sizes (its skeleton)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from solution.compress.coupling.attributes import Attributes, all_shapes, attributes_after, set_attributes
from solution.compress.coupling.components import NO_COMPONENT, Coupling, components_of
from solution.compress.coupling.ids import ChannelIds
from solution.compress.coupling.rules import apply_rule
from solution.compress.coupling.skeleton import Sizes, fitting_inputs, shapes_at
from solution.compress.coupling.tracing import Trace, TraceError, meta_copy, named_tensors, shapes_only, trace
from solution.compress.coupling.walk import walk


def every_output(_position: int) -> bool:
    """All outputs matter."""
    return True


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """What is looked at, and what the caller wants left alone.

    example       an input batch, of which one image is looked at
    protected     glob patterns of modules whose own outputs keep all channels ("stem.*", "fc")
    keeps_output  position among the flattened outputs -> whether it must keep its shape
    """

    model: nn.Module
    example: Tensor
    protected: tuple[str, ...] = ()
    keeps_output: Callable[[int], bool] = every_output

    def image(self) -> Tensor:
        """One image, where the model is."""
        device = next((tensor.device for tensor in named_tensors(self.model).values()), self.example.device)
        return self.example[:1].to(device)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The coupling of a subject, and what it was read from.

    attributes  sizes that modules keep beside their tensors, where they differ from the full model's
    unreached   parameters that the forward never reads
    derived     weights that the forward computes something from before it convolves with that
    """

    coupling: Coupling
    traces: tuple[Trace, ...]
    attributes: Attributes
    unreached: tuple[str, ...]
    derived: frozenset[str]


def analyze(request: TraceRequest, sizes: Sizes | None = None, before: Analysis | None = None) -> Analysis:
    """Trace the subject and find its coupling.

    sizes, before  look at a skeleton instead: the model cut to `sizes`, whose full form was analyzed `before`.
    Raises `TraceError` when the forward does not run.
    """
    with shapes_only() as mode:
        resized = {} if before is None else shapes_at(request.model, before.coupling, sizes or {})
        meta = meta_copy(request.model, resized)
        if resized:
            set_attributes(meta, attributes_after(request.model, all_shapes(meta)))
        traces = _traces(meta, request.image(), mode, before)
        attributes = attributes_after(request.model, all_shapes(meta))
    ledger = ChannelIds(frozenset() if before is None else before.coupling.readers())
    for one in traces:
        walk(one, ledger, apply_rule, request.keeps_output)
    known = None if before is None else {side.tensor: side.axis for side in before.coupling.sides}
    coupling = _protect(components_of(ledger, known), request.protected)
    return Analysis(
        coupling=coupling,
        traces=traces,
        attributes=attributes,
        unreached=_unreached(traces),
        derived=frozenset(ledger.derived),
    )


def _traces(meta: nn.Module, example: Tensor, mode: FakeTensorMode, before: Analysis | None) -> tuple[Trace, ...]:
    """The eval pass, and the train pass when it alone reaches some parameters (auxiliary heads)."""
    if before is not None:
        passes = (meta.train(one.mode == "train") for one in before.traces)
        return tuple(_fitted_trace(net, example, mode, before.coupling) for net in passes)
    traces = [trace(meta.eval(), example, mode)]
    if traces[0].unused():
        with suppress(TraceError):
            traces.append(trace(meta.train(), _two(example), mode))
    return tuple(traces)


def _two(example: Tensor) -> Tensor:
    """Batch norm in training wants more than one value per channel."""
    return torch.cat([example, example])


def _fitted_trace(meta: nn.Module, example: Tensor, mode: FakeTensorMode, coupling: Coupling) -> Trace:
    """Trace a skeleton. Where sizes do not match, layers are first fitted to what arrives at them."""
    batch = _two(example) if meta.training else example
    try:
        return trace(meta, batch, mode)
    except TraceError:
        with fitting_inputs(meta, coupling.readers()), torch.no_grad(), suppress(Exception):
            meta(mode.from_tensor(batch))
        return trace(meta, batch, mode)


def _unreached(traces: tuple[Trace, ...]) -> tuple[str, ...]:
    unused = [set(one.unused()) for one in traces]
    return tuple(sorted(set.intersection(*unused)))


def _protect(coupling: Coupling, patterns: tuple[str, ...]) -> Coupling:
    """Mark what the named modules make as kept."""
    for side in coupling.sides:
        if side.role == "out" and any(fnmatch(side.tensor.rpartition(".")[0], pattern) for pattern in patterns):
            for component in np.unique(side.component).tolist():
                coupling.reason.setdefault(component, "it is protected")
    return coupling


def atoms_of_tensors(coupling: Coupling, chosen: Callable[[str, str], bool]) -> set[int]:
    """Atoms that touch a tensor for which ``chosen(name, role)`` holds."""
    found: set[int] = set()
    for side in coupling.sides:
        if chosen(side.tensor, side.role):
            found.update(np.unique(coupling.atom[side.component]).tolist())
    return found - {NO_COMPONENT}
