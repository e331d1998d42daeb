"""What one operation on the image costs, and which of its products still wait to be added up.

A multiplication alone is a gate or an activation; honest nets have many, and the convention leaves them free. Two
products added up are a hand-made convolution. So each product is remembered along the tensors that are made from it,
and charged when a sum meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from solution.evaluate import operations as kinds
from solution.evaluate.dispatch import CONTRACTIONS
from solution.evaluate.operation_log import OperationLog


@dataclass
class Product:
    """`macs` multiplications whose results nothing has added up yet. All tensors made from them share this object."""

    macs: int


Trail = tuple[Product, ...] | None
"""Which products a tensor was made of since the last contraction: None for none, () when all are paid for."""


@dataclass(frozen=True, kw_only=True)
class ModuleCall:
    """One operation. `image` are the inputs that come from the image, `trails` their products, one trail for each."""

    name: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    result: Any
    weights: list[Tensor]
    image: list[Tensor]
    trails: list[Trail]

    @property
    def size(self) -> int:
        """Elements of the result."""
        return max((tensor.numel() for tensor in tensors_in(self.result)), default=0)


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def charge(call: ModuleCall, operation_log: OperationLog) -> Trail:
    """Charge the work of one call to `ledger`, or refuse it. Returns the trail of its result."""
    for names, rule in _RULES:
        if call.name in names:
            return rule(call, operation_log)
    operation_log.refuse(f"runs {call.name}, whose work the audit cannot tell")
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


def _pay(call: ModuleCall, trail: Trail, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, _collected(trail))
    return ()


def _free(call: ModuleCall, operation_log: OperationLog) -> Trail:
    return _joined(call.trails)


def _contraction(call: ModuleCall, operation_log: OperationLog) -> Trail:
    added_to = call.name.startswith("add") or call.name == "baddbmm"
    operands = call.arguments[1:3] if added_to else call.arguments[:2]
    both = all(any(operand is tensor for tensor in call.image) for operand in operands)
    macs = CONTRACTIONS[call.name](call.arguments, call.result)
    operation_log.charge(call.name, macs, attention=both and "convolution" not in call.name)
    return None


def _product(call: ModuleCall, operation_log: OperationLog) -> Trail:
    by_weights = any(tensor.numel() > 1 for tensor in call.weights)
    if by_weights:
        operation_log.charge(call.name, call.size)
    trail = _joined([*call.trails, () if by_weights else (Product(call.size),)])
    adds = call.name in kinds.ADDED_PRODUCTS and call.arguments[0] is call.image[0] and call.trails[0] is not None
    return _pay(call, trail, operation_log) if adds else trail


def _sum(call: ModuleCall, operation_log: OperationLog) -> Trail:
    trails = [trail for trail in call.trails if trail is not None]
    scaled = call.named.get("alpha", 1) != 1
    spread = call.size > max(tensor.numel() for tensor in call.image)
    if scaled or spread:
        trails.append((Product(call.size),))
    return _pay(call, _joined(trails), operation_log) if len(trails) > 1 else _joined(trails)


def _reduction(call: ModuleCall, operation_log: OperationLog) -> Trail:
    trail = _joined(call.trails)
    return None if trail is None else _pay(call, trail, operation_log)


def _square(call: ModuleCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, max(call.image[0].numel(), _collected(_joined(call.trails))))
    return ()


def _normalization(call: ModuleCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, call.image[0].numel() * (1 if call.arguments[1] is None else 2))
    return None


def _layer_normalization(call: ModuleCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, call.image[0].numel())
    return None


def _pooling(call: ModuleCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, max(call.image[0].numel(), _collected(_joined(call.trails))))
    return None


def _resampling(call: ModuleCall, operation_log: OperationLog) -> Trail:
    operation_log.charge(call.name, call.size)
    return _joined(call.trails)


_RULES: tuple[tuple[Container[str], Callable[[ModuleCall, OperationLog], Trail]], ...] = (
    (kinds.FREE, _free),
    (CONTRACTIONS, _contraction),
    (kinds.PRODUCTS, _product),
    (kinds.SUMS, _sum),
    (kinds.REDUCTIONS, _reduction),
    (kinds.SQUARES, _square),
    (kinds.NORMALIZATIONS, _normalization),
    (kinds.LAYER_NORMALIZATIONS, _layer_normalization),
    (kinds.POOLINGS, _pooling),
    (kinds.RESAMPLINGS, _resampling),
)
