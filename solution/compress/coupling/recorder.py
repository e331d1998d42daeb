"""What a forward pass calls, noted while it runs on shapes alone: ATen calls as the model made them, none taken apart.

Noting is all that `Recorder` does (no graph, no symbols), so a pass over shapes costs little more than running it.
`Shapes` are tensors that have shapes and no memory, for forwards that also look at values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.schema_check_mode import SchemaCheckMode
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
        self._blanks: dict[tuple[int, torch.Size], Ref] = {}
        self._counts: Counter[str] = Counter()
        for tensor in known:
            self._met(tensor)

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the call and make it."""
        keywords = kwargs or {}
        arguments = {
            name: self.refs(args[position] if position < len(args) else keywords.get(name, default))
            for position, (name, default) in enumerate(_signature(func))
        }
        result = torch.empty_like(args[0]) if _is_sound_norm(func, args) else func(*args, **keywords)
        kind = func._overloadpacket.__name__
        self._counts[kind] += 1
        name, made = f"{kind}_{self._counts[kind]}", self._made(result)
        if not types and isinstance(made, Ref):
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
        """What torch.zeros and its like made: they hand on another tensor than the one that we saw, in its memory."""
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


def _is_sound_norm(op: torch._ops.OpOverload, args: tuple[Any, ...]) -> bool:
    """A batch norm whose tensors fit its input keeps the input's shape; torch works that out slowly, part by part."""
    if op is not torch.ops.aten.batch_norm.default:
        return False
    image, *tensors = args[:5]
    return all(tensor is None or tensor.shape[0] == image.shape[1] for tensor in tensors)


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
