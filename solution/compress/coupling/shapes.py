"""Tensors that have shapes and no memory, for forwards that also look at values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

NUM_PICKED = 2
"""How many elements are picked wherever values decide (boxes above a threshold): more than one, few enough to loop."""


class Shapes(FakeTensorMode):
    """Fake tensors, but what reads nothing but tensors that a module holds beside its buffers (strides) is computed.

    What picks elements by their values is taken to pick a fixed number of them: the channels are the same for any.
    """

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Make the call; `types` names the fake tensors among its arguments."""
        kwargs = kwargs or {}
        if not types and func not in self.lift_fns and any(isinstance(argument, Tensor) for argument in args):
            return func(*args, **kwargs)
        picked = PICKS.get(str(func))
        return picked(*args) if picked is not None else super().__torch_dispatch__(func, types, args, kwargs)


def _some(tensor: Tensor, *others: Any) -> Tensor:
    """(P,) of the elements of `tensor`."""
    return tensor.new_empty(min(NUM_PICKED, tensor.numel()))


def _places(tensor: Tensor) -> Tensor:
    """(P, D) indices of elements that are not zero."""
    return tensor.new_empty((min(NUM_PICKED, tensor.numel()), tensor.ndim), dtype=torch.long)


def _boxes(boxes: Tensor, *others: Any) -> Tensor:
    """(P,) indices of the rows that stay."""
    return boxes.new_empty(min(NUM_PICKED, len(boxes)), dtype=torch.long)


def _distinct(tensor: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(P,) distinct elements, which of them each element is, and (P,) how often each occurs."""
    some = _some(tensor)
    return some, tensor.new_empty(tensor.shape, dtype=torch.long), some.new_empty(len(some), dtype=torch.long)


PICKS: dict[str, Callable[..., Any]] = {
    "aten.nonzero.default": _places,
    "aten.masked_select.default": _some,
    "aten._unique2.default": _distinct,
    "torchvision.nms.default": _boxes,
}
