"""What really runs: every convolution and matrix product that reaches PyTorch's dispatcher, in MACs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

Arguments = tuple[Any, ...]


def _convolution(arguments: Arguments, out: Tensor) -> int:
    images, weight, bias, transposed = *arguments[:3], arguments[6]
    positions = math.prod((images if transposed else out).shape[2:])
    return len(images) * weight.numel() * positions + (out.numel() if bias is not None else 0)


def _product(arguments: Arguments, out: Tensor) -> int:
    return arguments[0].numel() * arguments[1].shape[-1]


def _added_product(arguments: Arguments, out: Tensor) -> int:
    return arguments[1].numel() * arguments[2].shape[-1] + out.numel()


def _attention(arguments: Arguments, out: Any) -> int:
    query, key, value = arguments[:3]  # (B, heads, L, E), (B, heads, S, E), (B, heads, S, V)
    return query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _distances(arguments: Arguments, out: Tensor) -> int:
    return out.numel() * arguments[0].shape[-1]


CONTRACTIONS: dict[str, Callable[[Arguments, Any], int]] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "mm": _product,
    "_int_mm": _product,
    "bmm": _product,
    "addmm": _added_product,
    "baddbmm": _added_product,
    "addbmm": _added_product,
    "mv": lambda arguments, out: arguments[0].numel(),
    "addmv": lambda arguments, out: arguments[1].numel() + out.numel(),
    "dot": lambda arguments, out: arguments[0].numel(),
    "vdot": lambda arguments, out: arguments[0].numel(),
    "addr": lambda arguments, out: out.numel(),
    "_cdist_forward": _distances,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
}
"""Operation -> MACs of one call. A bias counts one per output element, as in ptflops' ``backend="aten"``."""


def operation_name(operation: OpOverload) -> str:
    """`aten.mul_.Tensor` and `aten.mul.Scalar` are both "mul"; an operation from outside aten keeps its namespace.

    An overload that reduces (`aten.scatter.reduce`) is told apart from its plain sisters.
    """
    name = operation._schema.name.removeprefix("aten::")
    name = name if name.endswith("__") else name.removesuffix("_")
    return f"{name}.reduce" if "reduce" in operation._overloadname else name


def decomposed(mode: TorchDispatchMode, operation: OpOverload, arguments: Arguments, named: Mapping[str, Any]) -> Any:
    """The result by smaller operations, or NotImplemented. Inference mode alone hands over undivided ones."""
    if not torch.is_inference_mode_enabled():
        return NotImplemented
    with mode:
        return operation.decompose(*arguments, **named)


class Dispatched(TorchDispatchMode):
    """Adds up `macs` of the contractions that run inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(
        self, operation: OpOverload, types: Any, arguments: Arguments = (), named: dict[str, Any] | None = None
    ) -> Any:
        result = decomposed(self, operation, arguments, named or {})
        if result is not NotImplemented:
            return result
        result = operation(*arguments, **(named or {}))
        macs = CONTRACTIONS.get(operation_name(operation))
        self.macs += macs(arguments, result) if macs else 0
        return result
