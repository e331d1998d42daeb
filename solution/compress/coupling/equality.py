"""Proof of a cut: the cut net equals the full one whose cut channels nobody reads.

Zeroing the columns with which later layers read a channel removes it exactly, whatever lies between (a sigmoid does not
map zero to zero, so zeroing what makes it would not). Layer and group norms, whose statistics span channels, take them
over the channels that stay.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from solution.compress.coupling.analysis import Analysis
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.tracing import named_tensors

ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5}
"""How far two ways to add up the same numbers may come apart, relative to the largest output."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Largest differences of outputs, relative to the largest output.

    error  between the cut net and the masked one: rounding only, when the cut is right
    moved  between the cut net and the full one: not zero, or the comparison says nothing
    limit  what the error may come to by rounding: more where the forward itself goes down to single precision
    """

    error: float
    moved: float
    limit: float

    @property
    def equal(self) -> bool:
        """Whether the cut is right, and did something."""
        return self.error < self.limit < self.moved


def compare(
    model: nn.Module,
    plan: ChannelPlan,
    full: Analysis,
    example: Tensor,
    dtype: torch.dtype = torch.float64,
    in_place: bool = False,
) -> Difference:
    """Cut and mask copies of `model` in eval mode and `dtype`, and compare what they return for `example`.

    in_place  mask `model` itself: very large nets have no room for another copy
    """
    cut = plan.apply(model).to(dtype).eval()
    whole = (model if in_place else copy.deepcopy(model)).to(dtype).eval()
    example = example.to(dtype)
    with torch.no_grad():
        with _Roundings() as roundings:
            sliced = _flat(cut(example))
        full_sized = _flat(whole(example))
        masked = _flat(mask(whole, cut, plan, full)(example))
    limit = ROUNDING[torch.float32 if roundings.seen else dtype]
    return Difference(error=_distance(sliced, masked), moved=_distance(sliced, full_sized), limit=limit)


class _Roundings(TorchDispatchMode):
    """Notes whether a forward in double precision takes anything down to single."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call as it is."""
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].dtype is torch.float64:
            self.seen |= result.dtype is torch.float32
        return result


def _flat(output: object) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _distance(left: list[Tensor], right: list[Tensor]) -> float:
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a.shape == b.shape]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


def mask(model: nn.Module, cut: nn.Module, plan: ChannelPlan, full: Analysis) -> nn.Module:
    """`model` in which nothing reads the channels that `plan` cuts, in place. `cut` is the cut net, for its norms."""
    tensors = named_tensors(model)
    for side in full.coupling.sides:
        place = _place(plan.tensors, side.tensor, side.axis)
        path = side.tensor.rpartition(".")[0]
        if place is not None and side.role == "in" and side.tensor in full.derived:
            made = _place(plan.tensors, side.tensor, 0)
            rows = None if made is None else plan.selections[made[2]]
            _convolution_over_kept(model.get_submodule(path), cut.get_submodule(path), plan.selections[place[2]], rows)
        elif place is not None and side.role == "in":
            kept = plan.selections[place[2]]
            with torch.no_grad():
                _zero_columns(tensors[side.tensor], side.axis, side.groups, np.array([k for k in kept if k >= 0]))
        if place is not None and side.role == "joint":
            _norm_over_kept(model.get_submodule(path), cut.get_submodule(path), plan.selections[place[2]])
    return model


def _place(
    tensors: Mapping[str, tuple[tuple[int, int, int], ...]], name: str, axis: int
) -> tuple[int, int, int] | None:
    return next((place for place in tensors.get(name, ()) if place[0] == axis), None)


def _zero_columns(weight: Tensor, axis: int, groups: int, kept: np.ndarray) -> None:
    """Columns count the inputs of all groups one after another; each group of rows reads its own."""
    grouped_columns = groups > 1 and axis == 1
    width = weight.shape[axis]
    blocks = weight.chunk(groups, 0) if grouped_columns else [weight]
    for number, block in enumerate(blocks):
        gone = np.setdiff1d(np.arange(width), kept - number * width)
        block.index_fill_(axis, torch.from_numpy(gone), 0)


def _norm_over_kept(norm: nn.Module, small: nn.Module, kept: tuple[int, ...]) -> None:
    """Let `norm` see and return only its kept channels, the others zero."""
    index = torch.tensor(kept)
    channels = len(norm.weight)

    def forward(x: Tensor) -> Tensor:
        last = isinstance(norm, nn.LayerNorm | nn.RMSNorm) and "2d" not in type(norm).__name__
        dim = x.ndim - 1 if last and x.shape[-1] == channels else 1
        return torch.zeros_like(x).index_copy(dim, index, small(x.index_select(dim, index)))

    norm.forward = forward


def _convolution_over_kept(
    layer: nn.Module, small: nn.Module, kept: tuple[int, ...], rows: tuple[int, ...] | None
) -> None:
    """Let a convolution with computed weights see only its kept inputs, and make only its kept outputs."""
    inputs, outputs = (torch.tensor(kept), torch.arange(layer.out_channels) if rows is None else torch.tensor(rows))

    def forward(x: Tensor) -> Tensor:
        made = small(x.index_select(1, inputs))
        return made.new_zeros(len(x), layer.out_channels, *made.shape[2:]).index_copy(1, outputs, made)

    layer.forward = forward


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random norm statistics, scales and zero-initialized layers, in place: no comparison passes by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in named_tensors(model).items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif name.endswith("running_mean") or (tensor.ndim == 1 and name.endswith("bias")):
                tensor.normal_(0.0, 0.2, generator=generator)
            elif isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and _is_flat(tensor):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return model


def _is_flat(tensor: Tensor) -> bool:
    """A scale, or a tensor that is the same everywhere (zero-initialized)."""
    return tensor.squeeze().ndim <= 1 or bool((tensor == tensor.flatten()[0]).all())
