"""Proof of a cut: the cut net equals the full one without the channels that are cut.

The full net runs once with NaN in place of every number that goes (`absent`), so nothing here knows which layers read
a channel or what lies between. Where an operation spreads the marks, the channels are hidden by zeros in the columns
with which later layers read them (`mask`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from solution.compress.coupling.absent import NAN, Present, Steady
from solution.compress.coupling.analysis import Analysis, TraceRequest, analyze
from solution.compress.coupling.inputs import call, tensors_in, unwrapped, with_tensors
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.tracing import named_tensors
from solution.compress.parametrized import materialize_all
from solution.contracts import InputError, copied
from solution.copying import forget_computed
from solution.graph import as_judged, while_hooked

ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""How far two ways to add up the same numbers may come apart, relative to the largest output."""
PICKING = frozenset(("nonzero", "topk", "sort", "argsort", "masked_select", "nms"))
ALL_SINGLE = 1e-3
"""The same for a whole net in single precision."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Largest differences of outputs, relative to the largest output.

    error  between the cut net and the full one without the channels that go: rounding only, when the cut is right
    moved  between the cut net and the full one: not zero, or the comparison means nothing
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
    example: Any,
    dtype: torch.dtype = torch.float64,
    in_place: bool = False,
) -> Difference:
    """Cut copies of `model` in eval mode and `dtype`, and compare what they return for `example`.

    in_place  mark `model` itself: very large nets have no room for another copy
    """
    cut = _applied(plan, model, dtype).eval()
    whole = materialize_all(_cast(model if in_place else copied(model), dtype).eval())
    example = _in(dtype, example)
    with _Roundings() as roundings:
        sliced = outputs_of(cut, example)
    moved = _distance(sliced, outputs_of(whole, example))
    masked = None if in_place else copied(whole)
    error = _distance(sliced, outputs_of(marked(whole, plan), example, Present()))
    if not error < np.inf and masked is not None:
        error = _distance(sliced, outputs_of(mask(masked, cut, plan, full), example))
    return Difference(error=error, moved=moved, limit=max(ROUNDING[dtype], roundings.limit))


def verified(model: nn.Module, plan: ChannelPlan, example: Any, in_single: bool = False) -> float:
    """The error of a cut of `model` on `example`, in double precision where that fits into memory and the net
    runs so, or `in_single`.

    `InputError` that names the layer where the cut net first differs.
    """
    fits = not in_single and _fits(model)
    dtype, given = torch.float64 if fits else torch.float32, example
    example = _telling(_in(dtype, example))
    cut, whole = _applied(plan, model, dtype), _cast(copied(unwrapped(model)), dtype)
    with _Roundings() as roundings:
        try:
            sliced = outputs_of(cut, example)
        except Exception as error:
            if fits:  # it holds numbers in single precision that are no parameters
                return verified(model, plan, given, in_single=True)
            raise InputError(f"the cut net does not run: {error}. {_REPORT}") from error
    limit = max(ROUNDING[dtype] if fits else ALL_SINGLE, roundings.limit)
    away = _distance(sliced, outputs_of(marked(whole, plan), example, Present()))
    if not away < np.inf:  # an operation spreads the marks
        whole = materialize_all(_cast(copied(unwrapped(model)), dtype))
        request = TraceRequest(model=materialize_all(copied(unwrapped(model))), example=example)
        away = _distance(sliced, outputs_of(mask(whole, cut, plan, analyze(request)), example))
    if not away < limit and not (plan.approximated and away < np.inf):
        where = _first_difference(marked(_cast(copied(unwrapped(model)), dtype), plan), cut, example)
        if where or not roundings.picks:  # boxes that tie may be picked in another order, though all layers agree
            where = where and f", first at {where}"
            raise InputError(
                f"the cut net would compute something else (by {away:.1g} of its output{where}). {_REPORT}"
            )
        away = limit
    return away


def agreed(whole: nn.Module, apply: Callable[[nn.Module], nn.Module], example: Any, within: Any = None) -> float:
    """The error of `apply` of a net that must give what `whole` gives, in double precision where that fits into memory
    and the net runs so.

    within: () -> a context in which `whole` runs. `InputError` when the two nets differ.
    """
    device = next((tensor.device for tensor in whole.parameters()), torch.device("cpu"))
    for dtype in (torch.float64, torch.float32) if _fits(whole) else (torch.float32,):
        given = with_tensors(lambda one: one.to(device), _telling(_in(dtype, example)))
        full = _cast(copied(unwrapped(whole)), dtype)
        try:
            with _Roundings() as roundings:
                small = outputs_of(apply(full), given)
        except (RuntimeError, TypeError, ValueError) as error:
            if dtype is torch.float64:  # it holds numbers in single precision that are no parameters
                continue
            raise InputError(f"the smaller net does not run: {error}. {_REPORT}") from error
        with contextlib.nullcontext() if within is None else within(full):
            away = _distance(small, outputs_of(full, given))
        if not away < max(ROUNDING[dtype] if dtype is torch.float64 else ALL_SINGLE, roundings.limit):
            raise InputError(f"the smaller net would compute something else (by {away:.1g} of its output). {_REPORT}")
        break
    return away


def _fits(model: nn.Module) -> bool:
    """Whether four copies in double precision have room in memory."""
    bytes_needed = 8 * 4 * sum(tensor.numel() for tensor in named_tensors(model).values())
    return bytes_needed < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


_REPORT = "Leave that out, or pass verify=False to look at the smaller net yourself"


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """All numbers of `model` in this precision, in place; complex ones stay complex."""

    def cast(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(torch.complex128 if dtype is torch.float64 else torch.complex64)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return forget_computed(model._apply(cast))


def _applied(plan: ChannelPlan, model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The cut net in this precision. Numbers that the plan scales are scaled in it, too: they round."""
    return plan.apply(_cast(copied(unwrapped(model)), dtype)) if plan.scales else _cast(plan.apply(model), dtype)


def _in(dtype: torch.dtype, example: Any) -> Any:
    return with_tensors(lambda one: one.to(dtype) if one.is_floating_point() else one, example)


def _telling(example: Any) -> Any:
    """Few samples, and random numbers in place of constants, which show little."""
    generator = torch.Generator().manual_seed(0)

    def distinct(one: Tensor) -> Tensor:
        if one.is_floating_point() and bool((one == one.flatten()[0]).all()):
            return torch.randn(one.shape, generator=generator, dtype=one.dtype).to(one.device)
        return one

    return with_tensors(distinct, example)


def outputs_of(model: nn.Module, example: Any, *modes: TorchDispatchMode) -> list[Tensor]:
    """The floating-point outputs of `model` in eval mode, attention taken apart and chance left out, under `modes`."""
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        contexts: tuple[Any, ...] = (as_judged(model), sdpa_kernel(SDPBackend.MATH), *modes, Steady())
        for context in contexts:
            stack.enter_context(context)
        return [leaf for leaf in tensors_in(call(model, example)) if leaf.is_floating_point()]


def _distance(left: list[Tensor], right: list[Tensor]) -> float:
    """The largest difference, relative to the largest number of each output; infinite where one is not finite."""
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a.shape == b.shape and b.numel()]
    distances = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs]
    return max((one if one == one else float("inf") for one in distances), default=float("inf"))


def marked(model: nn.Module, plan: ChannelPlan) -> nn.Module:
    """`model` with NaN in place of all numbers that `plan` cuts, in place."""
    tensors = named_tensors(materialize_all(model))
    with torch.no_grad():
        for name, places in plan.tensors.items():
            for axis, groups, number in places:
                kept = np.array([index for index in plan.selections[number] if index >= 0])
                _fill(tensors[name], axis, groups, kept, NAN)
    return model


def _first_difference(whole: nn.Module, cut: nn.Module, example: Any) -> str:
    """The first layer of the cut net whose outputs are not those that are left of the full one's."""
    seen: list[tuple[str, Tensor]] = []

    def watched(net: nn.Module, *modes: TorchDispatchMode) -> list[tuple[str, Tensor]]:
        seen.clear()
        handles = [
            module.register_forward_hook(
                lambda _module, _inputs, output, path=path: seen.extend((path, one) for one in tensors_in(output))
            )
            for path, module in net.named_modules()
            if next(module.children(), None) is None
        ]
        with while_hooked(handles):
            outputs_of(net, example, *modes)
        return list(seen)

    for (path, small), (_, full) in zip(watched(cut), watched(whole, Present()), strict=False):
        one, other = small.flatten().sort()[0], full[~full.isnan()].sort()[0]
        if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-4, atol=1e-6):
            return path
    return ""


class _Roundings(TorchDispatchMode):
    """Notes how far down a forward takes anything, which limits its precision, and whether it picks by values."""

    limit = 0.0
    picks = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call as it is."""
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].is_floating_point():
            self.limit = max(self.limit, ROUNDING.get(result.dtype, 0.0))
        self.picks |= func._overloadpacket.__name__ in PICKING
        return result


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
                _fill(tensors[side.tensor], side.axis, side.groups, np.array([k for k in kept if k >= 0]), 0.0)
        if place is not None and side.role == "joint":
            _norm_over_kept(model.get_submodule(path), cut.get_submodule(path), plan.selections[place[2]])
    return model


def _place(
    tensors: Mapping[str, tuple[tuple[int, int, int], ...]], name: str, axis: int
) -> tuple[int, int, int] | None:
    return next((place for place in tensors.get(name, ()) if place[0] == axis), None)


def _fill(weight: Tensor, axis: int, groups: int, kept: np.ndarray, value: float) -> None:
    """Columns count the inputs of all groups one after another; each group of rows reads its own."""
    grouped_columns = groups > 1 and axis == 1
    width = weight.shape[axis]
    blocks = weight.chunk(groups, 0) if grouped_columns else [weight]
    for number, block in enumerate(blocks):
        gone = np.setdiff1d(np.arange(width), kept - number * width)
        block.index_fill_(axis, torch.from_numpy(gone).to(block.device), value)


def _norm_over_kept(norm: Any, small: nn.Module, kept: tuple[int, ...]) -> None:
    """Let `norm` see and return only its kept channels, the others zero."""
    index = torch.tensor(kept)
    channels = len(norm.weight)

    def forward(x: Tensor) -> Tensor:
        last = isinstance(norm, nn.LayerNorm | nn.RMSNorm) and "2d" not in type(norm).__name__
        dim = x.ndim - 1 if last and x.shape[-1] == channels else 1
        return torch.zeros_like(x).index_copy(dim, index, small(x.index_select(dim, index)))

    norm.forward = forward


def _convolution_over_kept(layer: Any, small: nn.Module, kept: tuple[int, ...], rows: tuple[int, ...] | None) -> None:
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
