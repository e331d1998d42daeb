"""Convolution weights that are computed from parameters on every call: standardised, scaled, normalised weights.

The parameter of the weight's own shape stands for the weight, and gains of one number per row go along with its rows.
Statistics over a row are those of the inputs that stay, as with layer norms.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from solution.compress.coupling.tracing import Trace


@dataclass(frozen=True, kw_only=True)
class Derived:
    """source: the parameter that stands for a computed weight; gains: parameters with a number for each of its rows."""

    source: fx.Node
    gains: tuple[fx.Node, ...]


def derived_weights(trace: Trace) -> tuple[dict[fx.Node, Derived], set[fx.Node]]:
    """Node of a computed weight -> what it is computed from; and all nodes between the two."""
    found, between = {}, set()
    image = [node for node in trace.graph.nodes if node.op == "placeholder"][-1]
    for node in trace.graph.nodes:
        weight = node.args[1] if node.op == "call_function" and "aten.conv" in str(node.target) else None
        if weight is not None and weight.op == "call_function" and weight not in found:
            past = _past(weight)
            derived = (
                None if image in past else _derived(weight, [other for other in past if other.op == "placeholder"])
            )
            if derived is not None:
                found[weight] = derived
                between |= {other for other in past if other.op == "call_function"}
    return found, between


def _past(node: fx.Node) -> set[fx.Node]:
    past, waiting = set(), [node]
    while waiting:
        current = waiting.pop()
        if current not in past:
            past.add(current)
            waiting += current.all_input_nodes
    return past


def _derived(weight: fx.Node, sources: list[fx.Node]) -> Derived | None:
    shape = weight.meta["val"].shape
    same = [node for node in sources if node.meta["val"].shape == shape]
    gains = [node for node in sources if node not in same and node.meta["val"].numel() > 1]
    fits = all(node.meta["val"].shape[0] == node.meta["val"].numel() == shape[0] for node in gains)
    return Derived(source=same[0], gains=tuple(gains)) if len(same) == 1 and fits else None
