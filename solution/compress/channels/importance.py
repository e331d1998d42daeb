"""How much a channel matters: one small pure function per criterion, and the mean over everything coupled to it.

A criterion looks at rows (channels, weights of one channel) of a tensor and returns one number per channel; higher
stays. Those on gradients look at the rows with which later layers read a channel: a channel that nobody reads is gone.
Group norm: Fang et al., 2023 (arXiv:2301.12900). Magnitude: Li et al., 2017 (arXiv:1608.08710). Norm scale: Liu et al.,
2017 (arXiv:1708.06519). Geometric median: He et al., 2019 (arXiv:1811.00250). Taylor: Molchanov et al., 2019
(arXiv:1906.10771). Fisher: Theis et al., 2018 (arXiv:1801.05787). Hessian diagonal: LeCun et al., 1990 (Optimal Brain
Damage), by squared gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.compress.coupling.components import Coupling, Side
from solution.compress.coupling.tracing import named_tensors
from solution.contracts import Batches, InputError, StepContext
from solution.graph import observe
from solution.models.outputs import logits_of

Rows = Tensor
"""(channels, weights of one channel)."""


def l1(rows: Rows) -> Tensor:
    """Sum of magnitudes."""
    return rows.abs().sum(1)


def l2(rows: Rows) -> Tensor:
    """Euclidean length."""
    return rows.norm(dim=1)


def geometric_median(rows: Rows) -> Tensor:
    """Sum of distances to the other channels: one near all others can be replaced by them."""
    return torch.cdist(rows, rows).sum(1)


def taylor(effects: Tensor, _squares: Tensor) -> Tensor:
    """First-order change of the loss when nobody reads the channel. effects: (channels,) sums of weight x gradient."""
    return effects.abs()


def fisher(effects: Tensor, _squares: Tensor) -> Tensor:
    """Squared first-order change; its mean over images is a diagonal of the Fisher information per channel."""
    return effects**2


def hessian(_effects: Tensor, squares: Tensor) -> Tensor:
    """Second-order change with the Hessian's diagonal taken as squared gradients. squares: of weight x gradient."""
    return 0.5 * squares


def mean_activation(activations: Tensor, dim: int) -> Tensor:
    """(C,) mean magnitude of activations along `dim`."""
    return activations.movedim(dim, 0).flatten(1).abs().mean(1)


OF_WEIGHTS: dict[str, Callable[[Rows], Tensor]] = {"l1": l1, "l2": l2, "fpgm": geometric_median}
OF_GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"taylor": taylor, "fisher": fisher, "hessian": hessian}
CRITERIA = ("group_norm", *OF_WEIGHTS, "bn_scale", *OF_GRADIENTS, "activation", "random")
IMAGES_AT_ONCE = 16
"""Gradients are taken over few images at a time: over many they cancel out."""

SideScores = Mapping[tuple[str, int], Tensor]
"""(Tensor, axis) -> one score per position."""


def component_scores(model: nn.Module, coupling: Coupling, criterion: str, context: StepContext) -> np.ndarray:
    """(components,) importance, comparable across layers.

    Criteria on gradients and activations need `context.calibration`.
    """
    if criterion == "random":
        return np.random.default_rng(context.seed).random(len(coupling.atom))
    if criterion == "group_norm":
        return _group_norms(model, coupling)
    tensors = named_tensors(model)
    sides = [side for side in coupling.sides if side.tensor in tensors]
    if criterion in OF_WEIGHTS:
        weighty = [(side, tensors[side.tensor].detach()) for side in sides if side.role in ("out", "in")]
        return grouped(coupling, {s.key: OF_WEIGHTS[criterion](rows_of(tensor, s)) for s, tensor in weighty})
    if criterion == "bn_scale":
        return grouped(coupling, _norm_scales(model, sides))
    batches = context.need("calibration", f"importance {criterion!r}")
    if criterion == "activation":
        return grouped(coupling, _activations(model, sides, batches))
    return _losses_without(model, coupling, batches, OF_GRADIENTS[criterion])


def _group_norms(model: nn.Module, coupling: Coupling) -> np.ndarray:
    """Squared length of all that a channel is multiplied with, as a multiple of the mean of those made alike.

    Biases are left out: they have no part in what a channel carries.
    """
    parameters, squares = dict(model.named_parameters()), np.zeros(len(coupling.atom))
    sides: dict[str, list[Side]] = {}
    for side in coupling.sides:
        if side.tensor in parameters and not side.tensor.endswith("bias"):
            sides.setdefault(side.tensor, []).append(side)
    for name, of_tensor in sides.items():
        square = _squares(parameters[name].detach(), max(side.axis for side in of_tensor))
        for side in of_tensor:
            np.add.at(squares, side.component, rows_of(square, side).sum(1).double().cpu().numpy())
    _, alike = np.unique(coupling.atom, return_inverse=True)
    means = np.bincount(alike, squares) / np.bincount(alike)
    return squares / np.maximum(means[alike], 1e-30)


def _squares(tensor: Tensor, last: int) -> Tensor:
    """Squares of all elements, added up behind axis `last` (of a convolution: over its kernel).

    In single precision at least; its sums are made in pairs, so that double precision would only take longer.
    """
    square = (tensor if tensor.dtype == torch.float64 else tensor.float()).square()
    last = max(last, 1)  # groups of a convolution need both of its axes
    return square.flatten(last + 1).sum(last + 1) if square.ndim > last + 1 else square


def grouped(coupling: Coupling, scores: SideScores) -> np.ndarray:
    """(components,) mean over all positions of a component, each side divided by its mean first."""
    total, count = np.zeros(len(coupling.atom)), np.zeros(len(coupling.atom))
    for side in coupling.sides:
        if side.key in scores:
            values = scores[side.key].detach().double().cpu().numpy()
            np.add.at(total, side.component, values / max(values.mean(), 1e-30))
            np.add.at(count, side.component, 1)
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def rows_of(tensor: Tensor, side: Side) -> Rows:
    """The weights that belong to each position of `side`, differentiable in them."""
    if side.axis == 1 and side.groups > 1:
        blocks = tensor.reshape(side.groups, -1, *tensor.shape[1:])
        return blocks.transpose(1, 2).reshape(len(side.component), -1)
    return tensor.movedim(side.axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]


def _norm_scales(model: nn.Module, sides: list[Side]) -> SideScores:
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    norms = {f"{path}.weight": module.weight for path, module in model.named_modules() if isinstance(module, kinds)}
    found = {side.key: norms[side.tensor].abs() for side in sides if norms.get(side.tensor) is not None}
    if not found:
        raise InputError("importance 'bn_scale' needs norm layers with a scale, and the net has none")
    return found


def _losses_without(
    model: nn.Module, coupling: Coupling, batches: Batches, criterion: Callable[[Tensor, Tensor], Tensor]
) -> np.ndarray:
    """(components,) change of the loss, summed over batches: all readers of a channel together, on a copy."""
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    tensors = named_tensors(probe)
    readers = [side for side in coupling.sides if side.role == "in" and side.tensor in tensors]
    total = torch.zeros(len(coupling.atom), dtype=torch.double)
    for images, labels in batches:
        for some, their_labels in zip(images.split(IMAGES_AT_ONCE), labels.split(IMAGES_AT_ONCE), strict=True):
            probe.zero_grad()
            F.cross_entropy(logits_of(probe(some)), their_labels).backward()
            effects, squares = torch.zeros_like(total), torch.zeros_like(total)
            for side in readers:
                if (gradient := tensors[side.tensor].grad) is not None:
                    effect = rows_of(tensors[side.tensor].detach(), side) * rows_of(gradient, side)
                    component = torch.from_numpy(side.component)
                    effects.index_add_(0, component, effect.sum(1).double().cpu())
                    squares.index_add_(0, component, effect.square().sum(1).double().cpu())
            total += criterion(effects, squares)
    return total.numpy()


def _activations(model: nn.Module, sides: list[Side], batches: Batches) -> SideScores:
    makers = {side.tensor.removesuffix(".weight"): side for side in sides if side.role == "out"}
    total = {side.key: torch.zeros(len(side.component)) for side in makers.values()}
    probe = copy.deepcopy(model).eval()

    def record(path: str, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        dim = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
        total[makers[path].key].add_(mean_activation(output, dim).cpu())

    watched = {path: module for path, module in probe.named_modules() if path in makers}
    with observe(watched, after=record), torch.no_grad():
        for images, _ in batches:
            probe(images)
    return total
