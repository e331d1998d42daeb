"""Multiply-accumulates of a traced net, layer by layer, without running anything."""

from __future__ import annotations

from math import prod

from torch import fx

from solution.compress.coupling.tracing import Trace

OTHERS = ""
"""The name under which products without a weight (attention) are counted."""


def layer_macs(trace: Trace) -> dict[str, int]:
    """Weight -> multiply-accumulates of one image in the layers that use it."""
    sources = [node for node in trace.graph.nodes if node.op == "placeholder"]
    name_of = dict(zip(sources, trace.tensors, strict=False))
    batch = sources[-1].meta["val"].shape[0]
    found: dict[str, int] = {}
    for node in trace.graph.nodes:
        if node.op == "call_function":
            name, macs = _cost(node, name_of)
            if macs:
                found[name] = found.get(name, 0) + macs // batch
    return found


def _cost(node: fx.Node, name_of: dict[fx.Node, str]) -> tuple[str, int]:
    kind = str(node.target).removeprefix("aten.").split(".")[0]
    if kind.startswith("conv"):
        weight = node.args[1]
        sized = node.args[0] if "transpose" in kind else node
        return name_of.get(weight, OTHERS), prod(_shape(sized)) * prod(_shape(weight)[1:])
    if kind in ("linear", "matmul", "bmm", "mm", "addmm"):
        left, right = node.args[-2:] if kind == "addmm" else node.args[:2]
        return name_of.get(right, OTHERS), prod(_shape(node)) * _shape(left)[-1]
    if kind == "scaled_dot_product_attention":
        query, key, value = map(_shape, node.args[:3])
        return OTHERS, prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return OTHERS, 0


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)
