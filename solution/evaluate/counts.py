"""The competition's convention: ptflops' module hooks, called one module call at a time.

ptflops 0.7.5 adds up what its hook counts for every module whose class it knows, and nothing else
(``backend="pytorch"``, ``count_functional`` off). Its own loop keeps the sums on the modules, where a forward could
change them, counts a module twice that hangs in two places, and overlooks parametrized modules, whose class
`torch.nn.utils.parametrize` replaces. Here its hooks are asked at each call, and their answer is kept outside.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.jit import ScriptModule
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

_SUM = "__flops__"


def counted_class(module: nn.Module) -> type[nn.Module]:
    """The class by which ptflops knows the module: its own, or the one it had before it was parametrized."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def hookable_modules(model: nn.Module) -> list[nn.Module]:
    """Every module that can take hooks: scripted ones, and what lies inside them, cannot."""
    if isinstance(model, ScriptModule):
        return []
    found = {model: None}
    for child in model.children():
        found.update(dict.fromkeys(hookable_modules(child)))
    return list(found)


def counted_modules(model: nn.Module) -> set[nn.Module]:
    """The modules that enter the sum. As in ptflops, what lies inside a counted module does not."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    counted: set[nn.Module] = set()

    def walk(module: nn.Module) -> None:
        if counted_class(module) in MODULES_MAPPING:
            counted.add(module)
        else:
            for child in module.children():
                walk(child)

    walk(model)
    return counted


def call_macs(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    """What ptflops counts for one call of `module`, 0 when its hook does not understand the call."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    kept = module.__dict__.get(_SUM)
    module.__dict__[_SUM] = 0
    try:
        MODULES_MAPPING[counted_class(module)](module, inputs, output)
        return int(module.__dict__[_SUM])
    except (AssertionError, AttributeError, IndexError, TypeError, ValueError):
        return 0
    finally:
        module.__dict__.pop(_SUM)
        if kept is not None:
            module.__dict__[_SUM] = kept


Entered = Callable[[nn.Module], None]
Left = Callable[[nn.Module, int], None]


@contextlib.contextmanager
def watched(model: nn.Module, entered: Entered, left: Left) -> Iterator[None]:
    """While inside, tell when a module is entered and when it is left, with the MACs counted for that call."""
    counted = counted_modules(model)

    def before(module: nn.Module, _: tuple[Any, ...]) -> None:
        entered(module)

    def after(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        tensors = (*inputs, *(value for value in named.values() if isinstance(value, Tensor)))
        left(module, call_macs(module, tensors, output) if module in counted and output is not None else 0)

    handles = []
    try:
        for module in hookable_modules(model):
            handles.append(module.register_forward_pre_hook(before, prepend=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


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
