"""Follow every tensor from the image to the answer, and write down the work that is done on the way.

Each tensor is known by its storage. It is a weight (a parameter, a buffer, or computed from these alone: such work is
the same for all images and can be done beforehand, so it is free), or it comes from the image, or nobody knows where it
comes from; then the net left PyTorch in between, and its work cannot be counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from solution.evaluate.charges import OperationCall, OperationLog, Trail, charge, tensors_in
from solution.evaluate.operations import decomposed, macs_of, operation_name

CONSTANT_ELEMENTS = 4
"""A tensor of unknown origin up to this size is taken for a constant written into the code, such as a color."""

_VALUE_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_READING = ("numpy", "tolist", "__array__", "__dlpack__", "data_ptr", "storage", "untyped_storage", "__reduce_ex__")
_READS = {getattr(Tensor, name) for name in _READING}
_STRANGER = "uses a tensor that no module holds and PyTorch did not make on the way: work on it may go unseen"


class Tape(TorchDispatchMode):
    """While active, charges the work of each operation on the image to the log, and refuses what it cannot follow."""

    def __init__(self, model: nn.Module, images: Tensor, operation_log: OperationLog) -> None:
        super().__init__()
        self.operation_log = operation_log
        self._weights = {_key(tensor) for tensor in _held(model)} - {None}
        self._trails: dict[StorageWeakRef | None, Trail] = {_key(images): None}

    def comes_from_image(self, tensor: Tensor) -> bool:
        """Whether the values of `tensor` depend on the image."""
        return _key(tensor) in self._trails

    def __torch_dispatch__(
        self, operation: OpOverload, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        with torch._C.DisableTorchFunction():
            result = decomposed(self, operation, arguments, named)
            if result is not NotImplemented:
                return result
            weights, image = self._sorted(tensors_in((arguments, named)))
            trails = [self._trails.get(_key(tensor)) for tensor in image]
            result = operation(*arguments, **named)
            name = operation_name(operation)
            macs = macs_of(operation, arguments, named, result) if image else None
            parts = {"arguments": arguments, "named": named, "result": result, "macs": macs}
            self._note(operation, OperationCall(name=name, weights=weights, image=image, trails=trails, **parts))
        return result

    def _sorted(self, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights, and what comes from the image. A stranger is taken for the worse."""
        weights, image = [], []
        for tensor in tensors:
            key = _key(tensor)
            if key not in self._trails and (key in self._weights or tensor.numel() <= CONSTANT_ELEMENTS):
                weights.append(tensor)
                continue
            if key not in self._trails:
                self.operation_log.refuse(_STRANGER)
            image.append(tensor)
        return weights, image

    def _note(self, operation: OpOverload, call: OperationCall) -> None:
        changed = {_key(tensor) for tensor in (*_written(operation, call), *tensors_in(call.result))}
        if not call.image:
            self._weights |= changed - self._trails.keys() - {None}
            return
        if operation.namespace != "aten" and call.macs is None:
            self.operation_log.refuse(f"runs {operation._schema.name}, an operation from outside PyTorch")
        elif _reads_values(operation, call):
            self.operation_log.refuse(
                f"reads values of the image ({call.name}), so its work may depend on what it sees"
            )
        else:
            trail = charge(call, self.operation_log)
            self._trails.update(dict.fromkeys(changed, trail))
            return
        self._trails.update(dict.fromkeys(changed))


class Reads(TorchFunctionMode):
    """While active, refuses a net that takes values of the image out of PyTorch past the dispatcher."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        if function in _READS and self.tape.comes_from_image(arguments[0]):
            self.tape.operation_log.refuse(f"takes values of the image out of PyTorch ({function.__name__})")
        return function(*arguments, **(named or {}))


def _key(tensor: Tensor) -> StorageWeakRef | None:
    """Who the tensor is: views share it, and no later tensor gets it. None for one without plain storage."""
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return None


def _held(model: nn.Module) -> Iterator[Tensor]:
    """Every tensor that the net's modules hold before it runs, registered or not."""
    for module in model.modules():
        yield from tensors_in(list(vars(module).values()))
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)


def _written(operation: OpOverload, call: OperationCall) -> Iterator[Tensor]:
    for argument, value in zip(operation._schema.arguments, call.arguments, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(value)


def _reads_values(operation: OpOverload, call: OperationCall) -> bool:
    if call.name in ("index", "index_put"):
        return any(tensor.dtype == torch.bool for tensor in call.image)
    return not _VALUE_DEPENDENT.isdisjoint(operation.tags)
