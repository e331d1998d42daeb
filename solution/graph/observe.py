"""The one way to hook into a forward: hooks stand while a block runs, and are gone after it, whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn

Before = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""(path, module, positional inputs, named inputs); what it returns, if anything, takes the place of both inputs."""
After = Callable[[str, nn.Module, tuple[Any, ...], Any], Any]
"""(path, module, positional inputs, output); what it returns, if anything, takes the place of the output."""


def modules_at(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """{path: module} of these paths, "" being the net itself."""
    return {path: model.get_submodule(path) for path in paths}


@contextlib.contextmanager
def observe(
    modules: Mapping[str, nn.Module], *, before: Before | None = None, after: After | None = None
) -> Iterator[None]:
    """While inside, `before` and `after` are called around every forward of each of `modules`, {path: module}.

    Hooks that stayed would be copied along with the net, so they are registered for one block only.
    """
    handles = []
    try:
        for path, module in modules.items():
            if before is not None:
                handles.append(module.register_forward_pre_hook(_bound_before(before, path), with_kwargs=True))
            if after is not None:
                handles.append(module.register_forward_hook(_bound_after(after, path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _bound_before(before: Before, path: str) -> Callable[..., Any]:
    return lambda module, inputs, named: before(path, module, inputs, named)


def _bound_after(after: After, path: str) -> Callable[..., Any]:
    return lambda module, inputs, output: after(path, module, inputs, output)
