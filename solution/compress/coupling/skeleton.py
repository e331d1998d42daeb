"""A model at other sizes, without weights: cut on shapes alone, its layers fitted to what arrives at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from solution.compress.coupling.attributes import all_shapes, implied, set_attributes
from solution.compress.coupling.components import Coupling
from solution.compress.coupling.tracing import named_tensors
from solution.evaluate.running import while_hooked

Sizes = dict[tuple[str, int], np.ndarray]
"""(Tensor, axis) -> positions that a skeleton has; only their number in each group matters."""

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


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
        for store in (module._parameters, module._buffers):
            old = store.get(name)
            if old is not None and old.shape[axis] != size:
                shape = [size if dim == axis else length for dim, length in enumerate(old.shape)]
                new = torch.empty(shape, dtype=old.dtype)
                store[name] = nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new
