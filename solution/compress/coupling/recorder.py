"""What a forward pass calls, noted while it runs on shapes alone: ATen calls as the model made them, none taken apart.

Noting is all that `Recorder` does (no graph, no symbols), so a pass over shapes costs little more than running it.
`Shapes` are tensors that have shapes and no memory, for forwards that also look at values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor of the pass, by the order in which they were met. What is written in place is met anew."""

    number: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One call.

    name       the operator's, with a count when it is called again
    arguments  by the names of the operator's schema, a `Ref` for each tensor
    result     what it returned: tensors without memory
    made       the same with a `Ref` for each tensor
    where      path of the module whose forward made it
    """

    op: torch._ops.OpOverload
    name: str
    arguments: dict[str, Any]
    result: Any
    made: Any
    where: str = ""


class Recorder(SchemaCheckMode):
    """While active, notes every ATen call.

    Before autograd (the key PreDispatch) operators are still whole: an attention is one call, not ten. torch lets
    modes of three classes of its own in there; of the one that we name as parent we take nothing but that.
    """

    def __init__(self, known: list[Tensor]) -> None:
        """known: tensors that the pass starts from, `Ref` 0 and so on."""
        TorchDispatchMode.__init__(self, _dispatch_key=torch._C.DispatchKey.PreDispatch)
        self.calls: list[Recorded] = []
        self.constants: set[int] = set()
        self.tensors: list[Tensor] = []  # all of them, which also keeps their identities from being used again
        self.path: list[str] = []  # of the modules that are running, outermost first
        self._refs: dict[int, Ref] = {}
        self._alive: list[Tensor] = []
        self._blanks: dict[tuple[int, torch.Size], Ref] = {}
        self._counts: Counter[str] = Counter()
        for tensor in known:
            ref = self._met(tensor)
            if isinstance(tensor, FakeTensor):
                self._blanks[tensor.untyped_storage()._cdata, tensor.shape] = ref  # ``weight.data``

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the call and make it."""
        keywords = kwargs or {}
        if func.namespace == "profiler" or func is torch.ops.aten._has_compatible_shallow_copy_type.default:
            return func(*args, **keywords)
        if func is torch.ops.aten.contiguous.default:  # torch does not call it where it has nothing to do
            result = func(*args, **keywords)
            self._refs[id(result)] = self.refs(args[0])
            self._alive.append(result)
            return result
        arguments = {
            name: self.refs(args[position] if position < len(args) else keywords.get(name, default))
            for position, (name, default) in enumerate(_signature(func))
        }
        shape = SHAPES[func](*args, **keywords) if func in SHAPES else None
        if shape is None:
            result = func(*args, **keywords)
        else:
            result = args[0] if func._schema.is_mutable else blank(shape, args[0], args[0].fake_mode)
        kind = func._overloadpacket.__name__
        self._counts[kind] += 1
        name, made = f"{kind}_{self._counts[kind]}", self._made(result)
        if isinstance(made, Ref) and (not types or kind.startswith("new_") or kind.endswith("_like")):
            self._blanks[result.untyped_storage()._cdata, result.shape] = made
        where = self.path[-1] if self.path else ""
        self.calls.append(Recorded(op=func, name=name, arguments=arguments, result=result, made=made, where=where))
        return result

    def refs(self, value: Any) -> Any:
        """`value` with a `Ref` in the place of each tensor, lists and dictionaries looked through."""
        if isinstance(value, Tensor):
            return self._refs.get(id(value)) or self._handed_on(value) or self._constant(value)
        if isinstance(value, list | tuple):
            return [self.refs(item) for item in value]
        return {key: self.refs(item) for key, item in value.items()} if isinstance(value, dict) else value

    def _handed_on(self, tensor: Tensor) -> Ref | None:
        """What torch.zeros and its like made: they hand on another tensor than the one that we saw, in its memory. And
        the data of a parameter.
        """
        return self._blanks.get((tensor.untyped_storage()._cdata, tensor.shape))

    def _constant(self, tensor: Tensor) -> Ref:
        ref = self._met(tensor)
        self.constants.add(ref.number)
        return ref

    def _made(self, result: Any) -> Any:
        if isinstance(result, list | tuple):
            return [self._made(item) for item in result]
        return self._met(result) if isinstance(result, Tensor) else None

    def _met(self, tensor: Tensor) -> Ref:
        ref = self._refs[id(tensor)] = Ref(len(self.tensors))
        self.tensors.append(tensor)
        return ref


def blank(shape: Sequence[int], like: Tensor, mode: FakeTensorMode, strides: Sequence[int] | None = None) -> FakeTensor:
    """A tensor without memory, of the type and device of `like`; contiguous unless `strides` say otherwise."""
    with no_dispatch():
        if strides is None:
            meta = torch.empty(shape, dtype=like.dtype, device="meta")
        else:
            meta = torch.empty_strided(shape, strides, dtype=like.dtype, device="meta")
    return FakeTensor(mode, meta, like.device)


def _same(image: Tensor, *others: Any, **keywords: Any) -> torch.Size | None:
    """Shape of what is computed element by element."""
    return image.shape if _is_plain(image) else None


def _broadcast(left: Any, right: Any, **keywords: Any) -> torch.Size | None:
    if not _is_plain(left, right):
        return None
    return left.shape if left.shape == right.shape else torch.broadcast_shapes(left.shape, right.shape)


def _into(left: Any, right: Any, **keywords: Any) -> torch.Size | None:
    return left.shape if _is_plain(left, right) and left.shape == right.shape else None


def _normalized(image: Tensor, *tensors: Any) -> torch.Size | None:
    sound = all(tensor is None or tensor.shape[0] == image.shape[1] for tensor in tensors[:4])
    return image.shape if _is_plain(image) and sound else None


def _projected(image: Tensor, weight: Tensor, bias: Tensor | None = None) -> torch.Size | None:
    sound = _is_plain(image, weight) and weight.ndim == 2 and image.shape[-1] == weight.shape[1]
    sound = sound and (bias is None or bias.shape == weight.shape[:1])
    return torch.Size((*image.shape[:-1], weight.shape[0])) if sound else None


def _convolved(image: Tensor, weight: Tensor, bias: Tensor | None = None, *others: Any, **named: Any) -> Any:
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    stride, padding, dilation, groups = (defaults | dict(zip(defaults, others, strict=False)) | named).values()
    dims = weight.ndim - 2
    sound = _is_plain(image, weight) and image.ndim == weight.ndim and weight.shape[0] % groups == 0
    sound = sound and image.shape[1] == weight.shape[1] * groups
    if not sound or isinstance(padding, str) or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    each = [list(value) * (dims // len(value)) if isinstance(value, list | tuple) else [value] * dims
            for value in (stride, padding, dilation)]  # fmt: skip
    sizes = [
        (size + 2 * pad - wide * (kernel - 1) - 1) // step + 1
        for size, kernel, step, pad, wide in zip(image.shape[2:], weight.shape[2:], *each, strict=True)
    ]
    return torch.Size((image.shape[0], weight.shape[0], *sizes)) if min(sizes) > 0 else None


def _is_plain(*tensors: Any) -> bool:
    """Whether all are contiguous tensors without memory, of one type: what is computed from them then is, too."""
    return all(isinstance(one, FakeTensor) and one.dtype == tensors[0].dtype and one.is_contiguous() for one in tensors)


_aten = torch.ops.aten
SHAPES: dict[torch._ops.OpOverload, Callable[..., torch.Size | None]] = {
    **dict.fromkeys(
        (_aten.relu.default, _aten.relu_.default, _aten.hardtanh.default, _aten.hardtanh_.default, _aten.relu6.default,
         _aten.relu6_.default, _aten.silu.default, _aten.silu_.default, _aten.hardswish.default,
         _aten.hardswish_.default, _aten.gelu.default, _aten.sigmoid.default, _aten.sigmoid_.default,
         _aten.hardsigmoid.default, _aten.hardsigmoid_.default),
        _same,
    ),
    **dict.fromkeys((_aten.add.Tensor, _aten.mul.Tensor, _aten.sub.Tensor), _broadcast),
    **dict.fromkeys((_aten.add_.Tensor, _aten.mul_.Tensor), _into),
    _aten.batch_norm.default: _normalized,
    _aten.linear.default: _projected,
    **dict.fromkeys((_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default), _convolved),
}  # fmt: skip
"""Frequent calls -> the shape of what they return, for arguments as sound as can be, else None. PyTorch works it out
slowly, part by part."""


@cache
def _signature(op: torch._ops.OpOverload) -> tuple[tuple[str, Any], ...]:
    return tuple((argument.name, argument.default_value) for argument in op._schema.arguments)


NUM_PICKED = 2
"""How many elements are picked wherever values decide (boxes above a threshold): more than one, few enough to loop."""


class Shapes(FakeTensorMode):
    """Fake tensors, but what reads nothing but tensors that a module holds beside its buffers (strides) is computed.

    What picks elements by their values is taken to pick a fixed number of them: the channels are the same for any.
    """

    def __torch_dispatch__(  # type: ignore[override]  # PyTorch types `args` as a plain sequence
        self, func: torch._ops.OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Make the call; `types` names the fake tensors among its arguments."""
        kwargs = kwargs or {}
        if not types and func not in self.lift_fns and any(isinstance(argument, Tensor) for argument in args):
            return func(*args, **kwargs)
        picked = PICKS.get(func.name())
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
    "aten::nonzero": _places,
    "aten::masked_select": _some,
    "aten::_unique2": _distinct,
    "torchvision::nms": _boxes,
}
