"""Multiply-accumulates of a traced pass, by the weights that they are spent on. Biases are left out."""

from __future__ import annotations

from math import prod
from typing import Any

from solution.compress.coupling.products import subscripts
from solution.compress.coupling.recorder import Recorded, Ref
from solution.compress.coupling.tracing import Trace, refs_in

OTHERS = ""
"""The name under which products without a weight (attention) are counted."""

PRODUCTS = {
    "linear": ("input", "weight"),
    "matmul": ("self", "other"),
    "bmm": ("self", "mat2"),
    "mm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "dot": ("self", "tensor"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "addbmm": ("batch1", "batch2"),
    "addmv": ("mat", "vec"),
    "cdist": ("x1", "x2"),
}
"""Operator -> names of its two factors."""


def layer_macs(trace: Trace) -> dict[str, int]:
    """Weight -> multiply-accumulates of one image in the layers that use it, whatever they compute from it first."""
    batch = next((trace.shape(one)[0] for one in trace.inputs if trace.shape(one)), 1)
    sources: dict[int, set[int]] = {ref.number: {ref.number} for ref in trace.inputs}
    found: dict[str, int] = {}
    for one in trace.calls:
        factors, macs = _cost(one, trace)
        if macs:
            name = next((name for ref in factors if (name := _weight(ref, sources, trace))), OTHERS)
            found[name] = found.get(name, 0) + macs // batch
        read = set().union(*(sources.get(ref.number, {ref.number}) for ref in refs_in(one.arguments)))
        fed = read & {ref.number for ref in trace.inputs}
        sources.update(dict.fromkeys((ref.number for ref in refs_in(one.made)), fed or read))
    return found


def _weight(ref: Ref, sources: dict[int, set[int]], trace: Trace) -> str:
    """The parameter that a factor is, or the largest of those that it is computed from alone; "" for others.

    sources  of what was computed: the inputs of the net that it depends on, or else all that it is computed from
    """
    named = [number for number in sources.get(ref.number, {ref.number}) if number < len(trace.tensors)]
    return trace.tensors[max(named, key=lambda number: prod(trace.shapes[number]))] if named else ""


def _cost(call: Recorded, trace: Trace) -> tuple[list[Ref], int]:
    """Its factors, the likeliest weight first, and its multiply-accumulates."""
    kind, arguments = call.op._overloadpacket.__name__, call.arguments
    if kind.startswith("conv") or kind == "deform_conv2d":
        sized = trace.shape(arguments["input"]) if "transpose" in kind else call.result.shape
        return [arguments["weight"]], prod(sized) * prod(trace.shape(arguments["weight"])[1:])
    if kind in PRODUCTS:
        factors = [arguments[name] for name in PRODUCTS[kind]]
        if kind == "addbmm":  # adds up a product for each of a batch
            return factors[::-1], prod(trace.shape(factors[0])) * call.result.shape[-1]
        return factors[::-1], prod(call.result.shape) * trace.shape(factors[0])[-1]
    if kind == "scaled_dot_product_attention":
        query, key, value = (trace.shape(arguments[name]) for name in ("query", "key", "value"))
        return [], prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if kind == "einsum":
        return arguments["tensors"][::-1], _einsum(arguments, trace)
    if kind == "bilinear":
        weight = trace.shape(arguments["weight"])
        return [arguments["weight"]], prod(call.result.shape) * weight[1] * (weight[2] + 1)
    return _recurrent(kind, arguments, trace)


def _einsum(arguments: dict[str, Any], trace: Trace) -> int:
    """Factors are multiplied in turn; what no later factor needs is added up at once."""
    shapes = [trace.shape(one) for one in arguments["tensors"]]
    terms, output = subscripts(arguments["equation"], [len(shape) for shape in shapes])
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    total, letters = 0, set(terms[0])
    for number, term in enumerate(terms[1:], start=1):
        total += prod(sizes[letter] for letter in letters | set(term))
        needed = {*output, *"".join(terms[number + 1 :])}
        letters = (letters | set(term)) & needed
    return total


def _recurrent(kind: str, arguments: dict[str, Any], trace: Trace) -> tuple[list[Ref], int]:
    """Every matrix of every layer, once for each step of each sequence."""
    if kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") and "params" in arguments:
        data: Any = arguments.get("input", arguments.get("data"))
        steps = prod(trace.shape(data)[:-1])
        matrices = [one for one in arguments["params"] if len(trace.shape(one)) > 1]
        return matrices[:1], steps * sum(prod(trace.shape(one)) for one in matrices)
    if kind in ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"):
        matrices = [arguments["w_ih"], arguments["w_hh"]]
        return matrices, prod(trace.shape(arguments["input"])[:-1]) * sum(prod(trace.shape(one)) for one in matrices)
    return [], 0
