"""How much a channel matters: one small pure function per criterion, and the mean over everything coupled to it.

A criterion looks at rows (channels, weights of one channel) of a tensor and returns one number per channel; higher
stays. Magnitude: Li et al., 2017 (arXiv:1608.08710). Norm scale: Liu et al., 2017 (arXiv:1708.06519). Geometric median:
He et al., 2019 (arXiv:1811.00250). Taylor: Molchanov et al., 2019 (arXiv:1906.10771). Fisher: Theis et al., 2018
(arXiv:1801.05787). Hessian diagonal: LeCun et al., 1990 (Optimal Brain Damage), by squared gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.compress.coupling.components import Coupling, Side
from solution.compress.coupling.tracing import named_tensors
from solution.contracts import Batches, Given, InputError

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


def taylor(rows: Rows, gradients: Rows) -> Tensor:
    """First-order change of the loss when the channel becomes zero."""
    return (rows * gradients).sum(1).abs()


def fisher(rows: Rows, gradients: Rows) -> Tensor:
    """Squared first-order change; its mean over batches is a diagonal of the Fisher information per channel."""
    return (rows * gradients).sum(1) ** 2


def hessian(rows: Rows, gradients: Rows) -> Tensor:
    """Second-order change with the Hessian's diagonal taken as squared gradients."""
    return 0.5 * (rows**2 * gradients**2).sum(1)


def mean_activation(activations: Tensor, dim: int) -> Tensor:
    """(C,) mean magnitude of activations along `dim`."""
    return activations.movedim(dim, 0).flatten(1).abs().mean(1)


OF_WEIGHTS: dict[str, Callable[[Rows], Tensor]] = {"l1": l1, "l2": l2, "fpgm": geometric_median}
OF_GRADIENTS: dict[str, Callable[[Rows, Rows], Tensor]] = {"taylor": taylor, "fisher": fisher, "hessian": hessian}
CRITERIA = (*OF_WEIGHTS, "bn_scale", *OF_GRADIENTS, "activation", "random")

SideScores = Mapping[tuple[str, int], Tensor]
"""(Tensor, axis) -> one score per position."""


def component_scores(model: nn.Module, coupling: Coupling, criterion: str, given: Given) -> np.ndarray:
    """(components,) importance, comparable across layers: every tensor's scores are first divided by their mean.

    Criteria on gradients and activations need `given.calibration`.
    """
    if criterion == "random":
        return np.random.default_rng(given.seed).random(len(coupling.atom))
    tensors = named_tensors(model)
    sides = [side for side in coupling.sides if side.tensor in tensors]
    if criterion in OF_WEIGHTS:
        weighty = [(side, tensors[side.tensor].detach()) for side in sides if side.role in ("out", "in")]
        return grouped(coupling, {s.key: OF_WEIGHTS[criterion](rows_of(tensor, s)) for s, tensor in weighty})
    if criterion == "bn_scale":
        return grouped(coupling, _norm_scales(model, sides))
    batches = given.need("calibration", f"importance {criterion!r}")
    if criterion == "activation":
        return grouped(coupling, _activations(model, sides, batches))
    return grouped(coupling, _gradient_scores(model, sides, batches, OF_GRADIENTS[criterion]))


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


def _gradient_scores(
    model: nn.Module, sides: list[Side], batches: Batches, criterion: Callable[[Rows, Rows], Tensor]
) -> SideScores:
    """Mean over batches, on a copy in eval mode."""
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    tensors = named_tensors(probe)
    made = [side for side in sides if side.role == "out"]
    total = {side.key: torch.zeros(len(side.component)) for side in made}
    for images, labels in batches:
        probe.zero_grad()
        F.cross_entropy(probe(images), labels).backward()
        for side in made:
            weight = tensors[side.tensor]
            if weight.grad is not None:
                total[side.key] += criterion(rows_of(weight.detach(), side), rows_of(weight.grad, side)).cpu()
    return total


def _activations(model: nn.Module, sides: list[Side], batches: Batches) -> SideScores:
    makers = {side.tensor.removesuffix(".weight"): side for side in sides if side.role == "out"}
    total = {side.key: torch.zeros(len(side.component)) for side in makers.values()}
    probe = copy.deepcopy(model).eval()
    with _recording(probe, makers, total), torch.no_grad():
        for images, _ in batches:
            probe(images)
    return total


@contextmanager
def _recording(model: nn.Module, makers: Mapping[str, Side], total: Mapping[tuple[str, int], Tensor]) -> Iterator[None]:
    def hook(side: Side) -> Callable[[nn.Module, object, Tensor], None]:
        def record(module: nn.Module, _inputs: object, output: Tensor) -> None:
            dim = output.ndim - 1 if isinstance(module, nn.Linear) else 1
            total[side.key].add_(mean_activation(output, dim).cpu())

        return record

    modules = dict(model.named_modules())
    handles = [modules[path].register_forward_hook(hook(side)) for path, side in makers.items() if path in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
