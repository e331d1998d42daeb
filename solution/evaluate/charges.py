"""What each operation of PyTorch's dispatcher means to the audit. An operation in no table is refused, not guessed.

Additions, activations, comparisons and moving data are free, as in the competition's convention. A multiplication by
weights is work. A multiplication of any other kind (a gate, a Python number) becomes work once two such products
are added up, for then it is a multiply-accumulate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from solution.evaluate.operations import (
    ADDED_PRODUCTS,
    FREE,
    LAYER_NORMALIZATIONS,
    NORMALIZATIONS,
    POOLINGS,
    PRODUCTS,
    REDUCTIONS,
    RESAMPLINGS,
    SQUARES,
    SUMS,
)


@dataclass(kw_only=True)
class Entry:
    """All calls of one module. The work of the modules inside it is in their own entries.

    hidden     MACs by which calls ran more than was counted for them; calls do not make up for one another
    ran        operation -> MACs
    attention  MACs of products of two tensors that both come from the image
    refused    reasons to refuse the net whatever its figures
    """

    path: str
    module: nn.Module | None
    counted: int = 0
    hidden: int = 0
    ran: Counter[str] = field(default_factory=Counter)
    attention: int = 0
    refused: dict[str, None] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Call:
    entry: Entry
    ran: int = 0


class OperationLog:
    """Takes notes while a net runs. What happens in no module is noted under the path ""."""

    def __init__(self, model: nn.Module) -> None:
        self._paths = {module: path for path, module in model.named_modules()}
        self.entries: dict[nn.Module, Entry] = {model: Entry(path="", module=model)}
        self._calls = [_Call(entry=self.entries[model])]

    def enter(self, module: nn.Module) -> None:
        """From now on work is done inside `module`."""
        entry = self.entries.setdefault(module, Entry(path=self._paths[module], module=module))
        self._calls.append(_Call(entry=entry))

    def leave(self, module: nn.Module, counted: int) -> None:
        """`module` is done; its hook counted `counted` MACs for the call."""
        if len(self._calls) > 1 and self._calls[-1].entry.module is module:
            self._close(self._calls.pop(), counted)

    def close(self) -> None:
        """The net is done. A call that was never left counts for nothing."""
        while self._calls:
            self._close(self._calls.pop(), 0)

    def _close(self, call: _Call, counted: int) -> None:
        call.entry.counted += counted
        call.entry.hidden += max(0, call.ran - counted)

    def charge(self, operation: str, macs: int, *, attention: bool = False) -> None:
        """`operation` did `macs` of work on behalf of the module that runs now."""
        call = self._calls[-1]
        call.ran += macs
        call.entry.ran[operation] += macs
        call.entry.attention += macs if attention else 0

    def refuse(self, reason: str) -> None:
        """Whatever its figures, the net cannot be trusted, because of the module that runs now."""
        self._calls[-1].entry.refused[reason] = None

    @property
    def ran(self) -> int:
        """MACs of all entries."""
        return sum(entry.ran.total() for entry in self.entries.values())

    def forgive(self, kind: type[nn.Module], operations: Collection[str], at_most: float) -> None:
        """Take what `operations` did inside modules of exactly this `kind` out of the hidden work, up to `at_most`."""
        known = [entry for entry in self.entries.values() if type(entry.module) is kind]
        work = {id(entry): min(entry.hidden, sum(entry.ran[name] for name in operations)) for entry in known}
        if sum(work.values()) <= at_most:
            for entry in known:
                entry.hidden -= work[id(entry)]


@dataclass
class Product:
    """`macs` multiplications whose results nothing has added up yet. All tensors made from them share this object."""

    macs: int


Trail = tuple[Product, ...] | None
"""Which products a tensor was made of since the last contraction: None for none, () when all are paid for."""


@dataclass(frozen=True, kw_only=True)
class OperationCall:
    """One operation. `image` are the inputs that come from the image, `trails` their products, one trail for each.

    macs  of a product that has a count
    """

    name: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    result: Any
    weights: list[Tensor]
    image: list[Tensor]
    trails: list[Trail]
    macs: int | None = None

    @property
    def size(self) -> int:
        """Elements of the result."""
        return max((tensor.numel() for tensor in tensors_in(self.result)), default=0)


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def charge(call: OperationCall, operation_log: OperationLog) -> Trail:
    """Charge the work of one call to `operation_log`, or refuse it. Returns the trail of its result."""
    if call.macs is not None:
        return _contraction(call, operation_log)
    for names, rule in _RULES:
        if call.name in names:
            return rule(call, operation_log)
    operation_log.refuse(f"runs {call.name}, whose work the audit does not know")
    return None


def _joined(trails: Iterable[Trail]) -> Trail:
    known = [trail for trail in trails if trail is not None]
    unpaid = {id(product): product for trail in known for product in trail if product.macs}
    return tuple(unpaid.values()) if known else None


def _collected(trail: Trail) -> int:
    macs = sum(product.macs for product in trail or ())
    for product in trail or ():
        product.macs = 0
    return macs


def _pay(call: OperationCall, trail: Trail, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, _collected(trail))
    return ()


def _free(call: OperationCall, operation_log: OperationLog) -> Trail:
    return _joined(call.trails)


def _contraction(call: OperationCall, operation_log: OperationLog) -> Trail:
    operands = call.arguments[1:3] if "add" in call.name else call.arguments[:3]
    factors = [operand for operand in operands if any(operand is tensor for tensor in call.image)]
    by_weights = "conv" in call.name or "fft" in call.name or "bag" in call.name
    operation_log.charge(call.name, call.macs or 0, attention=len(factors) > 1 and not by_weights)
    return None


def _product(call: OperationCall, operation_log: OperationLog) -> Trail:
    by_weights = any(tensor.numel() > 1 for tensor in call.weights)
    if by_weights:
        operation_log.charge(call.name, call.size)
    trail = _joined([*call.trails, () if by_weights else (Product(call.size),)])
    adds = call.name in ADDED_PRODUCTS and call.arguments[0] is call.image[0] and call.trails[0] is not None
    return _pay(call, trail, operation_log) if adds else trail


def _sum(call: OperationCall, operation_log: OperationLog) -> Trail:
    trails = [trail for trail in call.trails if trail is not None]
    scaled = call.named.get("alpha", 1) != 1
    spread = call.size > max(tensor.numel() for tensor in call.image)
    if scaled or spread:
        trails.append((Product(call.size),))
    return _pay(call, _joined(trails), operation_log) if len(trails) > 1 else _joined(trails)


def _reduction(call: OperationCall, operation_log: OperationLog) -> Trail:
    trail = _joined(call.trails)
    return None if trail is None else _pay(call, trail, operation_log)


def _square(call: OperationCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, max(call.image[0].numel(), _collected(_joined(call.trails))))
    return ()


def _normalization(call: OperationCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, call.image[0].numel() * (1 if call.arguments[1] is None else 2))
    return None


def _layer_normalization(call: OperationCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, call.image[0].numel())
    return None


def _pooling(call: OperationCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, max(call.image[0].numel(), _collected(_joined(call.trails))))
    return None


def _resampling(call: OperationCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, call.size)
    return _joined(call.trails)


_RULES: tuple[tuple[Container[str], Callable[[OperationCall, OperationLog], Trail]], ...] = (
    (FREE, _free),
    (PRODUCTS, _product),
    (SUMS, _sum),
    (REDUCTIONS, _reduction),
    (SQUARES, _square),
    (NORMALIZATIONS, _normalization),
    (LAYER_NORMALIZATIONS, _layer_normalization),
    (POOLINGS, _pooling),
    (RESAMPLINGS, _resampling),
)
