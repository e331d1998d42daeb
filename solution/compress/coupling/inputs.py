"""Any example in, any output out: the nets and inputs that people hand over.

An example is a tensor, a tuple of positional inputs, or a dict of named ones, however nested. Outputs may also be
dataclasses and objects with fields, such as those of Hugging Face.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves, tree_map

from solution.contracts import Example, InputError, Plan, StepContext, StructuralStep, copied
from solution.graph import call

LAZY = (UninitializedParameter, UninitializedBuffer)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in an example or an output, in order."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, Mapping):
            found += tensors_in(list(leaf.values()))
        elif dataclasses.is_dataclass(leaf) or type(leaf).__module__ != "builtins":
            found += tensors_in(list(getattr(leaf, "__dict__", {}).values()))
    return found


def with_tensors(change: Callable[[Tensor], Tensor], example: Any) -> Any:
    """`example` with every tensor changed."""
    example = dict(example) if isinstance(example, Mapping) else example
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, example)


def shapes_of(example: Any) -> str:
    """Shapes and number types of an example, for messages."""
    tensors = tensors_in(example)
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors} - {"float32"}
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors) + "".join(f" ({kind})" for kind in sorted(kinds))


def batch_of(example: Any) -> int:
    """The number of samples: the length of the first input that has one."""
    return next((len(tensor) for tensor in tensors_in(example) if tensor.ndim), 1)


def unwrapped(model: nn.Module) -> nn.Module:
    """The net inside `torch.compile`, data parallelism or an average of weights."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
        return unwrapped(model.module)
    inner = getattr(model, "_orig_mod", None)
    return model if inner is None else unwrapped(inner)


def prepared(model: nn.Module, example: Any) -> nn.Module:
    """The net inside `model`, its lazy layers initialized by the example. `InputError` for what cannot be cut."""
    model = unwrapped(model)
    kind = type(model).__name__
    for path, module in model.named_modules():
        where = f"{kind}.{path}" if path else kind
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"{where} was made by torch.jit ({type(module).__name__}), so there is no Python forward to cut: "
                "pass the module that it was made from"
            )
        if "torch.ao.nn" in type(module).__module__ and "quantized" in type(module).__module__:
            raise InputError(f"{where} is already quantized: cut the net first, then quantize what is left")
    tensors = [*model.parameters(), *model.buffers()]
    if any(not isinstance(tensor, LAZY) and tensor.is_meta for tensor in tensors):
        raise InputError(f"the weights of {kind} are on the meta device, without values: load them first")
    if not tensors_in(example):
        raise InputError(f"an example must be a tensor, or a tuple or dict of tensors, got {type(example).__name__}")
    if any(tensor.numel() == 0 for tensor in tensors_in(example)):
        raise InputError(f"an example must be a batch of at least one sample, got the shape {shapes_of(example)}")
    if any(isinstance(tensor, LAZY) for tensor in tensors):
        model = copied(model)
        with torch.no_grad():
            call(model, example)
    return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyNetStep(StructuralStep):
    """A structural step that works on the net inside `torch.compile`, data parallelism or an average of weights.

    Lazy layers are initialized by the example first. Nets without a Python forward or without values are refused.
    """

    def plan(self, model: nn.Module, context: StepContext | Example) -> Plan:
        """What would be cut. Raises `InputError` when that is nothing."""
        context = StepContext.of(context)
        return self.decide(prepared(model, context.example), context)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """Decide, then apply."""
        return super().run(prepared(model, context.example), context)
