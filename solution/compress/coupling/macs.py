"""Multiply-accumulates of a traced net, layer by layer, without running anything."""

from __future__ import annotations

from math import prod

from solution.compress.coupling.recorder import Recorded, Ref
from solution.compress.coupling.tracing import Trace

OTHERS = ""
"""The name under which products without a weight (attention) are counted."""


def layer_macs(trace: Trace) -> dict[str, int]:
    """Weight -> multiply-accumulates of one image in the layers that use it."""
    batch = trace.shape(trace.image)[0]
    found: dict[str, int] = {}
    for call in trace.calls:
        weight, macs = _cost(call, trace)
        if macs:
            name = OTHERS if weight is None else trace.source(weight) or OTHERS
            found[name] = found.get(name, 0) + macs // batch
    return found


def _cost(call: Recorded, trace: Trace) -> tuple[Ref | None, int]:
    """What it reads as a weight, and its multiply-accumulates."""
    kind, arguments = call.op._overloadpacket.__name__, call.arguments
    if kind.startswith("conv"):
        sized = trace.shape(arguments["input"]) if "transpose" in kind else call.result.shape
        return arguments["weight"], prod(sized) * prod(trace.shape(arguments["weight"])[1:])
    if kind in PRODUCTS:
        left, right = (arguments[name] for name in PRODUCTS[kind])
        return right, prod(call.result.shape) * trace.shape(left)[-1]
    if kind == "scaled_dot_product_attention":
        query, key, value = (trace.shape(arguments[name]) for name in ("query", "key", "value"))
        return None, prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return None, 0


PRODUCTS = {
    "linear": ("input", "weight"),
    "matmul": ("self", "other"),
    "bmm": ("self", "mat2"),
    "mm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
}
"""Operator -> names of its two factors."""
