"""The competition's convention: ptflops' module hooks, called one module call at a time.

ptflops 0.7.5 adds up what its hook counts for every module whose class it knows, and nothing else
(``backend="pytorch"``, ``count_functional`` off). Its own loop keeps the sums on the modules, where a forward could
change them, counts a module twice that hangs in two places, and overlooks parametrized modules, whose class
`torch.nn.utils.parametrize` replaces. Here its hooks are asked at each call, and their answer is kept outside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.utils import parametrize

_SUM = "__flops__"


def counted_class(module: nn.Module) -> type[nn.Module]:
    """The class by which ptflops knows the module: its own, or the one it had before it was parametrized."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def hookable_modules(model: nn.Module) -> list[nn.Module]:
    """Every module that can take hooks: scripted ones, and what lies inside them, cannot."""
    if isinstance(model, ScriptModule):
        return []
    found = {model: None}
    for child in model.children():
        found.update(dict.fromkeys(hookable_modules(child)))
    return list(found)


def counted_modules(model: nn.Module) -> set[nn.Module]:
    """The modules that enter the sum. As in ptflops, what lies inside a counted module does not."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    counted: set[nn.Module] = set()

    def walk(module: nn.Module) -> None:
        if counted_class(module) in MODULES_MAPPING:
            counted.add(module)
        else:
            for child in module.children():
                walk(child)

    walk(model)
    return counted


def call_macs(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    """What ptflops counts for one call of `module`, 0 when its hook does not understand the call."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    kept = module.__dict__.get(_SUM)
    module.__dict__[_SUM] = 0
    try:
        MODULES_MAPPING[counted_class(module)](module, inputs, output)
        return int(module.__dict__[_SUM])
    except (AssertionError, AttributeError, IndexError, TypeError, ValueError):
        return 0
    finally:
        module.__dict__.pop(_SUM)
        if kept is not None:
            module.__dict__[_SUM] = kept


Entered = Callable[[nn.Module], None]
Left = Callable[[nn.Module, int], None]


@contextlib.contextmanager
def watched(model: nn.Module, entered: Entered, left: Left) -> Iterator[None]:
    """While inside, tell when a module is entered and when it is left, with the MACs counted for that call."""
    counted = counted_modules(model)

    def before(module: nn.Module, _: tuple[Any, ...]) -> None:
        entered(module)

    def after(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        tensors = (*inputs, *(value for value in named.values() if isinstance(value, Tensor)))
        left(module, call_macs(module, tensors, output) if module in counted and output is not None else 0)

    handles = []
    try:
        for module in hookable_modules(model):
            handles.append(module.register_forward_pre_hook(before, prepend=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
