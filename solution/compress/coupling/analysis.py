"""A model and an example in, its coupling out; and the same for the model at other sizes (its skeleton).

A skeleton is the model cut on shapes alone, without weights, its layers fitted to what arrives at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from solution.compress.coupling.attributes import (
    Attributes,
    Stored,
    all_shapes,
    attributes_after,
    implied,
    set_attributes,
)
from solution.compress.coupling.components import NO_COMPONENT, Coupling, components_of
from solution.compress.coupling.ids import ChannelIds
from solution.compress.coupling.inputs import batch_of, call, with_tensors
from solution.compress.coupling.rules import apply_rule
from solution.compress.coupling.tracing import Trace, TraceError, meta_copy, named_tensors, shapes_only, trace
from solution.compress.coupling.walk import walk
from solution.graph import while_hooked

Sizes = dict[tuple[str, int], np.ndarray]
"""(Tensor, axis) -> positions that a skeleton has; only their number in each group matters."""

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
SAMPLE_DROPS = ("StochasticDepth", "DropPath")
"""Classes of others that read the mode to drop samples; a second pass for them alone would cost time."""


def skeleton_sizes(coupling: Coupling, stays: np.ndarray) -> Sizes:
    """The positions along every axis whose components (components,) stay."""
    return {
        side.key: np.flatnonzero(stays[side.component])
        for side in coupling.sides
        if side.role != "output" and not stays[side.component].all()
    }


def shapes_at(model: nn.Module, coupling: Coupling, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of `model` that are smaller at `sizes`."""
    tensors = named_tensors(model)
    shapes: dict[str, list[int]] = {}
    for side in coupling.sides:
        if side.key in sizes and side.tensor in tensors:
            each = side.groups if side.axis == 1 else 1
            shape = shapes.setdefault(side.tensor, list(tensors[side.tensor].shape))
            shape[side.axis] = len(sizes[side.key]) // each
    return {name: tuple(shape) for name, shape in shapes.items()}


@contextmanager
def fitting_inputs(meta: nn.Module, readers: frozenset[str]) -> Iterator[None]:
    """While open, a forward pass resizes what each layer reads and carries to the channels that arrive at it.

    How many channels each layer makes stays, so the pass shows where they go in the real wiring.
    readers: weights that read channels; convolutions that are none of them carry their channels along.
    """
    rules = {nn.Linear: _fit_linear, nn.modules.conv._ConvNd: _fit_convolution, **dict.fromkeys(NORMS, _fit_norm)}
    handles = []
    for path, module in meta.named_modules():
        fit = next((rule for kind, rule in rules.items() if isinstance(module, kind)), None)
        if fit is _fit_convolution and f"{path}.weight" not in readers:
            fit = _fit_depthwise
        if fit is not None:
            handles.append(module.register_forward_pre_hook(fit))
    with while_hooked(handles):
        yield


def _fit_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    _resize(module, ("weight", "bias", "running_mean", "running_var"), 0, inputs[0].shape[1])
    set_attributes(module, {"": implied(module, all_shapes(module))})


def _fit_linear(module: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
    _resize(module, ("weight",), 1, inputs[0].shape[-1])
    module.in_features = inputs[0].shape[-1]


def _fit_convolution(module: nn.modules.conv._ConvNd, inputs: tuple[Tensor, ...]) -> None:
    arriving = inputs[0].shape[1 - module.weight.ndim]
    if not module.transposed and arriving % module.groups == 0:
        _resize(module, ("weight",), 1, arriving // module.groups)
        module.in_channels = arriving


def _fit_depthwise(module: nn.modules.conv._ConvNd, inputs: tuple[Tensor, ...]) -> None:
    arriving = inputs[0].shape[1 - module.weight.ndim]
    if not module.transposed:
        made = arriving * (module.out_channels // module.in_channels)
        _resize(module, ("weight", "bias"), 0, made)
        module.in_channels, module.out_channels, module.groups = arriving, made, arriving


def _resize(module: nn.Module, names: tuple[str, ...], axis: int, size: int) -> None:
    for name in names:
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            old = store.get(name)
            if old is not None and old.shape[axis] != size:
                shape = [size if dim == axis else length for dim, length in enumerate(old.shape)]
                new = torch.empty(shape, dtype=old.dtype)
                store[name] = nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new


def every_output(_position: int) -> bool:
    """All outputs matter."""
    return True


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """What is looked at, and what the caller wants left alone.

    example       inputs of one forward: a tensor, or a tuple or dict of tensors
    protected     glob patterns of modules whose own outputs keep all channels ("stem.*", "fc")
    keeps_output  position among the flattened outputs -> whether it must keep its shape
    learned       numbers that modules store, as they are found (`stored`)
    in_vain       numbers of which it is known that it does not help to set them
    approximate   what mixes neighbouring channels does not tie them together, though a cut then changes what it mixes
    """

    model: nn.Module
    example: Any
    protected: tuple[str, ...] = ()
    keeps_output: Callable[[int], bool] = every_output
    learned: Stored = field(default_factory=dict)
    in_vain: set[tuple[type, str]] = field(default_factory=set)
    approximate: bool = False

    def inputs(self) -> Any:
        """The example where the model is."""
        tensor = next(iter(named_tensors(self.model).values()), None)
        return self.example if tensor is None else with_tensors(lambda one: one.to(tensor.device), self.example)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The coupling of a subject, and what it was read from.

    attributes  sizes that modules keep beside their tensors, where they differ from the full model's
    unreached   parameters that the forward never reads
    derived     weights that the forward computes something from before it convolves with that
    scales      parameter -> how many times larger it must be at these sizes, for what the forward computes from them
    """

    coupling: Coupling
    traces: tuple[Trace, ...]
    attributes: Attributes
    unreached: tuple[str, ...]
    derived: frozenset[str]
    scales: dict[str, float] = field(default_factory=dict)


def analyze(request: TraceRequest, sizes: Sizes | None = None, before: Analysis | None = None) -> Analysis:
    """Trace the subject and find its coupling.

    sizes, before  look at a skeleton instead: the model cut to `sizes`, whose full form was analyzed `before`.
    Raises `TraceError` when the forward does not run.
    """
    with shapes_only() as mode:
        resized = {} if before is None else shapes_at(request.model, before.coupling, sizes or {})
        meta = _resized(request, resized, mode)
        traces, meta = _traces(request, meta, mode, before)
        attributes = attributes_after(request.model, all_shapes(meta), request.learned)
    coupling, derived = _coupled(request, traces, None if before is None else before.coupling, frozenset())
    known: frozenset[str] = frozenset()
    while before is None and coupling.constants - known:
        known = known | coupling.constants
        coupling, derived = _coupled(request, traces, None, known)
    return Analysis(
        coupling=coupling,
        traces=traces,
        attributes=attributes,
        unreached=_unreached(traces),
        derived=derived,
    )


def _coupled(
    request: TraceRequest, traces: tuple[Trace, ...], before: Coupling | None, constants: frozenset[str]
) -> tuple[Coupling, frozenset[str]]:
    """The coupling in these passes, and the weights that are computed in them. before: that of the full net."""
    sides = () if before is None else before.sides
    ledger = ChannelIds(
        frozenset() if before is None else before.readers(),
        frozenset(side.tensor for side in sides if side.groups > 1),
        None if before is None else before.over_all,
        request.approximate,
        frozenset(side.tensor for side in sides if len(side.component) > 1),
        constants if before is None else before.constants,
    )
    for one in traces:
        walk(one, ledger, apply_rule, request.keeps_output)
    return _protect(components_of(ledger, before), request.protected), frozenset(ledger.derived)


def _resized(request: TraceRequest, shapes: dict[str, tuple[int, ...]], mode: FakeTensorMode) -> nn.Module:
    """The subject on shapes alone, some of its tensors of other `shapes`, with the numbers that follow from these."""
    meta = meta_copy(request.model, shapes, mode)
    if shapes:
        set_attributes(meta, attributes_after(request.model, all_shapes(meta), request.learned))
    return meta


def _traces(
    request: TraceRequest, meta: nn.Module, mode: FakeTensorMode, before: Analysis | None
) -> tuple[tuple[Trace, ...], nn.Module]:
    """The eval pass, and the train pass when it alone reaches some parameters (auxiliary heads) or makes other calls;
    and what they ran on, which is another one where layers had to be fitted to what arrives at them.
    """
    example, traces = request.inputs(), []
    if before is not None:
        for one in before.traces:
            made, meta = _fitted_trace(request, meta.train(one.mode == "train"), mode, before.coupling)
            traces.append(made)
        return tuple(traces), meta
    traces.append(trace(meta.eval(), example, mode))
    if traces[0].unused() or _reads_mode(request.model):
        with suppress(TraceError):
            trained = trace(meta.train(), _two(example), mode)
            traces += [trained] if traces[0].unused() or _kinds(trained) != _kinds(traces[0]) else []
    return tuple(traces), meta


def _reads_mode(model: nn.Module) -> bool:
    """Whether a forward of somebody's own may do something else in training. What drops whole samples does not count:
    channels have no part in it.
    """
    classes = {one for module in model.modules() for one in type(module).__mro__ if issubclass(one, nn.Module)}
    theirs = [one for one in classes if not one.__module__.startswith("torch.") and one.__name__ not in SAMPLE_DROPS]
    return any(_names(getattr(value, "__code__", None)) for one in theirs for value in vars(one).values())


def _names(code: Any) -> bool:
    """Whether a function, or one inside it, names the mode."""
    return code is not None and (
        "training" in code.co_names or any(_names(one) for one in code.co_consts if hasattr(one, "co_names"))
    )


def _kinds(one: Trace) -> list[object]:
    return [call.op for call in one.calls]


def _two(example: Any) -> Any:
    """Batch norm in training wants more than one value per channel."""
    return (
        example
        if batch_of(example) > 1
        else with_tensors(lambda one: torch.cat([one, one]) if one.ndim else one, example)
    )


def _fitted_trace(
    request: TraceRequest, meta: nn.Module, mode: FakeTensorMode, coupling: Coupling
) -> tuple[Trace, nn.Module]:
    """Trace a skeleton. Where sizes do not match, layers are first fitted to what arrives, in a pass of its own:
    modules may keep what a pass that failed has computed.
    """
    batch = _two(request.inputs()) if meta.training else request.inputs()
    try:
        return trace(meta, batch, mode), meta
    except TraceError:
        with fitting_inputs(meta, coupling.readers()), torch.no_grad(), suppress(Exception):
            call(meta, with_tensors(mode.from_tensor, batch))
        full = all_shapes(request.model)
        shapes = {name: shape for name, shape in all_shapes(meta).items() if shape != full[name]}
        fitted = _resized(request, shapes, mode).train(meta.training)
        return trace(fitted, batch, mode), fitted


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
