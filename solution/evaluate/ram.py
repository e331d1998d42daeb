"""Memory that a net needs on a microcontroller, estimated from one forward: activations, and what its runtime keeps.

The estimate follows TensorFlow Lite Micro: channels last, one image, operations one after the other. Norms and ReLUs
are part of the layer before them; a padding that is not "same" is an operation of its own, whose result lives beside
what it pads, one that is "same" is part of the convolution behind it, also where the net pads by itself; each output
channel of a layer takes a multiplier and a shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from solution.contracts import Example
from solution.evaluate.cost import watched
from solution.evaluate.operations import decomposed, operation_name
from solution.graph import as_judged, one_for, run
from solution.liveness import live_bytes, placed_bytes

_FUSED = {"relu", "hardtanh", "relu6", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
          "dropout", "native_dropout", "detach", "_to_copy", "alias", "lift_fresh"}  # fmt: skip
"""What is done within the operation before it, or not at all."""
_PRODUCTS = {"convolution", "_convolution", "mm", "addmm", "bmm", "baddbmm"}
_POOLS = {"max_pool2d_with_indices": 1, "max_pool2d": 1, "avg_pool2d": 1}
_SHUFFLES = {"clone": 3, "channel_shuffle": 3, "native_channel_shuffle": 3}
"""Operations as which one of PyTorch's is written: reshape, transpose, reshape."""
_OPERATION_BYTES, _TENSOR_BYTES, _CHANNEL_BYTES, _START_BYTES = 112, 24, 8, 700
"""What the runtime keeps of each operation, tensor and output channel, and at all, where pointers have 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes for one image.

    int8, float  room that activations take, in integers and in float32
    arena        all that a microcontroller's runtime needs in int8
    layer        where most activations live
    """

    int8: int
    float: int
    arena: int
    layer: str


def memory(model: nn.Module, example: Example) -> Memory:
    """What `model` needs for one image of `example`."""
    recorder = _Recorder()
    path_of = {module: path for path, module in model.named_modules()}
    entered: list[str] = []
    recorder.entered = entered
    with as_judged(model):
        one = one_for(model, example)
        for image in (part for part in tree_leaves(one) if isinstance(part, Tensor)):
            recorder.given(image)
        with (
            watched(
                model, lambda module: entered.append(path_of.get(module, "")), lambda _module, _macs: entered.pop()
            ),
            recorder,
        ):
            run(model, one)
    recorder.drop_paddings()
    steps = [(inputs, outputs) for inputs, outputs, _ in recorder.steps]
    made = steps[-1][1] if steps else ()
    live = live_bytes(steps, recorder.sizes, recorder.inputs, made)
    wide = {number: 4 * size for number, size in recorder.sizes.items()}
    most = max(range(len(live)), key=live.__getitem__) if live else -1
    peak, wide_peak = (placed_bytes(steps, sizes, recorder.inputs, made) for sizes in (recorder.sizes, wide))
    tensors = 2 * recorder.operations + 2 * recorder.products
    kept = _OPERATION_BYTES * recorder.operations + _TENSOR_BYTES * tensors + _CHANNEL_BYTES * recorder.channels
    layer = recorder.steps[most][2] if live else ""
    return Memory(int8=peak, float=wide_peak, arena=peak + kept + _START_BYTES, layer=layer)


class _Recorder(TorchDispatchMode):
    """Writes down every operation on what comes from the image: (inputs, outputs, layer), by numbers of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[tuple[int, ...], tuple[int, ...], str]] = []
        self.sizes: dict[int, int] = {}
        self.inputs: list[int] = []
        self.entered: list[str] = []
        self.operations = self.products = self.channels = 0
        self._numbers: dict[int, int] = {}
        self._paddings: dict[int, tuple[int, list[int]]] = {}  # {what zeros made larger: (what it was, by how much)}
        self._held: list[Any] = []  # a storage that is freed would lend its address to another

    def given(self, image: Tensor) -> None:
        """A tensor that is there before the net runs."""
        self.inputs.append(self._new(image))

    def __torch_dispatch__(
        self, operation: OpOverload, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        result = decomposed(self, operation, arguments, named)
        if result is not NotImplemented:
            return result
        result = operation(*arguments, **named)
        tensors = [part for part in tree_leaves((arguments, named)) if isinstance(part, Tensor)]
        inputs = list(dict.fromkeys(self._numbers[key] for key in map(_key, tensors) if key in self._numbers))
        outputs = [part for part in tree_leaves(result) if isinstance(part, Tensor) and part.is_floating_point()]
        if inputs and outputs:
            self._note(operation_name(operation), arguments, inputs, outputs[0])
        return result

    def _note(self, name: str, arguments: tuple[Any, ...], inputs: list[int], output: Tensor) -> None:
        key = _key(output)
        if key in self._numbers:  # a view, or changed in place
            return
        if name in _FUSED and len(inputs) == 1:
            self._numbers[key] = inputs[0]
            self._held.append(output)
            return
        if name == "constant_pad_nd" and not any(arguments[2:3]):
            self._paddings[len(self.sizes)] = inputs[0], list(arguments[1])
        if name in ("convolution", "_convolution") and inputs[0] in self._paddings:
            source, added = self._paddings[inputs[0]]
            if _is_same(arguments, output, added):
                inputs[0] = source
        if padding := _padding(name, arguments, output):
            image: Tensor = arguments[0]
            number = self._number(image[0].numel() // image[0, 0].numel() * (image.shape[2] + padding[0])
                                  * (image.shape[3] + padding[1]))  # fmt: skip
            self._step(tuple(inputs), number, "padding of ")
            inputs = [number]
        if name in _PRODUCTS:
            self.products += 1
            self.channels += output.shape[1] if output.dim() > 1 else 1
        self.operations += _SHUFFLES.get(name, 1) - 1
        self._step(tuple(inputs), self._new(output))

    def drop_paddings(self) -> None:
        """Leave out those that are part of the convolutions that read them."""
        read = {number for inputs, _, _ in self.steps for number in inputs}
        kept = [step for step in self.steps if step[1][0] not in self._paddings or step[1][0] in read]
        kept = kept if not self.steps or kept[-1:] == self.steps[-1:] else [*kept, self.steps[-1]]
        self.operations -= len(self.steps) - len(kept)
        self.steps = kept

    def _step(self, inputs: tuple[int, ...], output: int, what: str = "") -> None:
        self.operations += 1
        self.steps.append((inputs, (output,), what + (self.entered[-1] if self.entered else "")))

    def _new(self, tensor: Tensor) -> int:
        number = self._number(tensor.numel())
        self._numbers[_key(tensor)] = number
        self._held.append(tensor)
        return number

    def _number(self, size: int) -> int:
        self.sizes[len(self.sizes)] = size
        return len(self.sizes) - 1


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _is_same(arguments: tuple[Any, ...], output: Tensor, added: list[int]) -> bool:
    """Whether a convolution that does not pad gives, behind these zeros, what one with the padding "same" gives.

    added  left, right, top, bottom
    """
    image, weight, stride, padding, dilation, transposed = arguments[0], arguments[1], *arguments[3:7]
    if transposed or len(added) != 4 or any(_pair(padding)):
        return False
    for side, (before, after) in enumerate((added[2:], added[:2])):
        size, step = image.shape[2 + side] - before - after, _pair(stride)[side]
        reach = _pair(dilation)[side] * (weight.shape[2 + side] - 1) + 1
        whole = max((-(-size // step) - 1) * step + reach - size, 0)
        if output.shape[2 + side] != -(-size // step) or (before, after) != (whole // 2, whole - whole // 2):
            return False
    return True


def _padding(name: str, arguments: tuple[Any, ...], output: Tensor) -> tuple[int, int] | None:
    """Rows and columns that must be added to the image first; None where the runtime pads by itself."""
    if name in ("convolution", "_convolution"):
        weight, stride, padding, dilation, transposed = arguments[1], *arguments[3:7]
        if transposed:
            return None
        kernel: Sequence[int] = weight.shape[2:]
    elif name in _POOLS:
        kernel, stride = arguments[1], arguments[2] if len(arguments) > 2 and arguments[2] else arguments[1]
        padding, dilation = arguments[3] if len(arguments) > 3 else (0, 0), (1, 1)
    else:
        return None
    kernel, stride, padding, dilation = map(_pair, (kernel, stride, padding, dilation))
    if output.dim() != 4 or not any(padding):
        return None
    for side in (0, 1):
        size, out = arguments[0].shape[2 + side], output.shape[2 + side]
        reach = dilation[side] * (kernel[side] - 1) + 1
        same = max((-(-size // stride[side]) - 1) * stride[side] + reach - size, 0)
        if name == "avg_pool2d" or out != -(-size // stride[side]) or same // 2 != padding[side]:
            return 2 * padding[0], 2 * padding[1]
    return None


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))
