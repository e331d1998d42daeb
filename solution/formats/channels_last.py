"""A net's graph written so that a runtime which keeps channels last has nothing to turn around.

Channel shuffle splits the last axis and swaps its halves there: one transposition where three and two more around it
would stand. ReLU goes in front of a concatenation, where it is part of the layers before: no operation, and integers
spend no levels on numbers that it cuts off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from solution.contracts import InputError

_aten = torch.ops.aten
_RELU = (_aten.relu.default, _aten.relu_.default)
_SHUFFLE = (_aten.channel_shuffle.default, _aten.native_channel_shuffle.default)
_VIEW = (_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default)
_SAME = (_aten.contiguous.default, _aten.clone.default)
_KEEPING = (_aten.max_pool2d.default, _aten.avg_pool2d.default, _aten.adaptive_avg_pool2d.default, *_SAME, *_VIEW,
            _aten.permute.default, _aten.transpose.int, _aten.dropout.default)  # fmt: skip
"""What gives no number below 0 where it gets none."""
_SWAPS = {
    _aten.transpose.int: lambda first, second: {int(first), int(second)} in ({1, 2}, {-4, -3}),
    _aten.permute.default: lambda order: list(order) == [0, 2, 1, 3, 4],
}


def traced(net: nn.Module, example: Tensor) -> Any:
    """`net` as a ``torch.export.ExportedProgram`` for one image. `InputError` when it cannot be traced."""
    try:
        return torch.export.export(net, (example[:1],))
    except Exception as error:  # whatever the forward's own code does under tracing
        raise InputError(f"this net cannot be traced by torch.export: {str(error).splitlines()[0]}") from error


def lacks(program: Any, operation: str, suffix: str) -> str:
    """The message about an operation of a traced net that a format lacks, with the layer in which it stands."""
    layer = ""
    for graph in (program.graph, program.run_decompositions().graph):
        for node in graph.nodes:
            if str(node.target) == operation and (stack := node.meta.get("nn_module_stack")):
                layer = list(stack.values())[-1][0]
    where = f" in {layer}" if layer else ""
    return (
        f"this net cannot be written as {suffix}: the format has no {operation}{where}; write that layer with "
        "operations that it has, or export the net as ONNX"
    )


def channels_last(program: Any) -> fx.GraphModule:
    """The program as a module, shuffles and ReLUs moved; its input is still (1, C, H, W)."""
    module = program.module()
    for move in (_shuffles, _relus):
        move(module.graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _shuffles(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        found = _shuffle(node)
        if found is None:
            continue
        source, groups = found
        batch, channels, height, width = node.meta["val"].shape
        with graph.inserting_before(node):
            new = source
            for target, argument in (
                (_aten.permute.default, [0, 2, 3, 1]),
                (_aten.reshape.default, [batch, height, width, groups, channels // groups]),
                (_aten.permute.default, [0, 1, 2, 4, 3]),
                (_aten.reshape.default, [batch, height, width, channels]),
                (_aten.permute.default, [0, 3, 1, 2]),
            ):
                new = graph.call_function(target, (new, argument))
            new.meta = dict(node.meta)
        node.replace_all_uses_with(new)


def _shuffle(node: fx.Node) -> tuple[fx.Node, int] | None:
    """What is shuffled and its groups, where `node` is the end of a channel shuffle, also of one written by hand."""
    if node.target in _SHUFFLE:
        return node.args[0], node.args[1]  # type: ignore[return-value]
    if node.target not in _VIEW or node.meta["val"].dim() != 4:
        return None
    swapped = _before(node, _SAME)
    swap: Callable[..., bool] | None = _SWAPS.get(swapped.target)  # type: ignore[call-overload]
    if swap is None or len(swapped.users) != 1 or not swap(*swapped.args[1:]):
        return None
    split = _before(swapped, _SAME)
    if split.target not in _VIEW or split.meta["val"].dim() != 5 or len(split.users) != 1:
        return None
    source = split.args[0]
    if not isinstance(source, fx.Node) or source.meta["val"].shape != node.meta["val"].shape:
        return None
    return source, split.meta["val"].shape[1]


def _before(node: fx.Node, skipped: tuple[Any, ...]) -> fx.Node:
    """What `node` is made of, past operations that change nothing."""
    source: Any = node.args[0]
    while source.target in skipped and len(source.users) == 1:
        source = source.args[0]
    return source


def _relus(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        joined: Any = node.args[0] if node.target in _RELU else None
        if not isinstance(joined, fx.Node) or joined.target != _aten.cat.default or len(joined.users) != 1:
            continue
        parts, joined_parts = [], cast("list[fx.Node]", joined.args[0])
        with graph.inserting_before(joined):
            for part in joined_parts:
                new = part if _is_positive(part) else graph.call_function(_aten.relu.default, (part,))
                new.meta = dict(part.meta)
                parts.append(new)
        joined.args = (parts, *joined.args[1:])
        node.replace_all_uses_with(joined)
        graph.erase_node(node)  # it may change its input in place, so that it never counts as dead


def _is_positive(node: Any) -> bool:
    """Whether no number that `node` gives lies below 0."""
    while isinstance(node, fx.Node) and node.target in _KEEPING:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target in _RELU
