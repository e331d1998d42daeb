"""Sending ids through a traced graph: the values of its nodes, one rule per kind of call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from solution.compress.coupling.derived import derived_weights
from solution.compress.coupling.ids import KEPT, NEUTRAL, Ledger, uniform
from solution.compress.coupling.tracing import Trace


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A parameter or buffer of the model, before anything was done to it but moving its two axes.

    name     its name in the model
    turned   its two axes are swapped
    gains    parameters of one number per row that it is multiplied with before use
    """

    name: str
    shape: tuple[int, ...]
    turned: bool = False
    gains: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the graph: its arguments by the names of the operator's schema, and the shape of what it returns."""

    ledger: Ledger
    op: torch._ops.OpOverload
    label: str
    arguments: Mapping[str, Any]
    result: Any

    @property
    def name(self) -> str:
        """The operator's name without overload and without the underscore of its in-place form."""
        return self.op._overloadpacket.__name__.rstrip("_")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the one tensor that it returns."""
        return tuple(self.result.shape)

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def ids(self, name: str) -> Tensor:
        """Ids of the argument called `name`; numbers and None are neutral."""
        return as_ids(self.ledger, self.arguments.get(name))

    def tensors(self) -> list[Tensor]:
        """Ids of every tensor among the arguments, lists looked through."""
        found: list[Tensor] = []
        for value in self.arguments.values():
            items = value if isinstance(value, list | tuple) else [value]
            found += [as_ids(self.ledger, item) for item in items if isinstance(item, Tensor | Weight)]
        return found


Rule = Callable[[Call], Any]


def as_ids(ledger: Ledger, value: Any) -> Tensor:
    """The ids of an activation, of a parameter's elements, or of a number."""
    if isinstance(value, Weight):
        shape = value.shape[::-1] if value.turned else value.shape
        ids = ledger.tensor_elements(value.name, shape)
        return ids.t() if value.turned else ids
    return value if isinstance(value, Tensor) else torch.tensor(NEUTRAL)


def walk(trace: Trace, ledger: Ledger, rule: Rule, keeps_output: Callable[[int], bool]) -> None:
    """Send ids through `trace` and note in `ledger` what they meet. Outputs that `keeps_output` chooses must stay."""
    values: dict[fx.Node, Any] = {}
    sources = iter([*trace.tensors, None])
    derived, between = derived_weights(trace)
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            values[node] = _source(node, next(sources))
        elif node.op == "get_attr":
            constant = getattr(trace.graph.owning_module, node.target)
            values[node] = uniform(KEPT if constant.numel() > 1 else NEUTRAL, constant.shape)
        elif node in derived:
            source, gains = derived[node].source, derived[node].gains
            values[node] = replace(values[source], gains=tuple(values[gain].name for gain in gains))
            ledger.derived.add(values[source].name)
        elif node in between:
            values[node] = None
        elif node.op == "call_function":
            values[node] = _called(node, values, ledger, rule, trace.mode)
        elif node.op == "output":
            _keep_outputs(_looked_up(node.args[0], values), ledger, keeps_output, trace.mode)


def _source(node: fx.Node, name: str | None) -> Any:
    return uniform(KEPT, _shape(node)) if name is None else Weight(name=name, shape=_shape(node))


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _looked_up(argument: Any, values: dict[fx.Node, Any]) -> Any:
    return fx.map_arg(argument, values.__getitem__) if argument is not None else None


def _called(node: fx.Node, values: dict[fx.Node, Any], ledger: Ledger, rule: Rule, mode: str) -> Any:
    arguments = fx.map_arg(node.args, values.__getitem__)
    if not isinstance(node.target, torch._ops.OpOverload):
        return arguments[0][arguments[1]]
    keywords = fx.map_arg(node.kwargs, values.__getitem__)
    bound = {}
    for position, argument in enumerate(node.target._schema.arguments):
        default = keywords.get(argument.name, argument.default_value)
        bound[argument.name] = arguments[position] if position < len(arguments) else default
    return rule(
        Call(ledger=ledger, op=node.target, label=f"{mode} {node.name}", arguments=bound, result=node.meta.get("val"))
    )


def _keep_outputs(outputs: Any, ledger: Ledger, keeps_output: Callable[[int], bool], mode: str) -> None:
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor | Weight)]
    for position, leaf in enumerate(leaves):
        if keeps_output(position):
            ledger.output(f":{mode} output {position}", as_ids(ledger, leaf))
