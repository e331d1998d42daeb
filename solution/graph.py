"""How a forward is watched: run for measuring only, in eval mode and without gradients, with the net left as it was;
hooks that stand while a block runs and are gone after it.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from solution.contracts import Example, InputError


def images_for(model: nn.Module, images: Tensor) -> Tensor:
    """`images` (B, C, H, W) on the device and in the precision of the model's weights; whole numbers stay whole."""
    if images.dim() < 2 or len(images) == 0:
        raise InputError(f"an example must be a batch of at least one image, got the shape {tuple(images.shape)}")
    return _moved(images, *_place(model))


def one_for(model: nn.Module, example: Example) -> Example:
    """The first sample of `example`, on the device and in the precision of the model's weights.

    Of a tuple or dict, tensors that share their first size, of at least 2, are taken to be batches.
    """
    if isinstance(example, Tensor):
        return images_for(model, example[:1])
    place, tensors = _place(model), [part for part in tree_leaves(example) if isinstance(part, Tensor)]
    sizes = {len(tensor) for tensor in tensors if tensor.dim()}
    if not tensors or 0 in sizes:
        raise InputError("an example must hold at least one tensor, and none that is empty")
    batched = len(sizes) == 1
    return tree_map(
        lambda part: _moved(part[:1] if batched and part.dim() else part, *place) if isinstance(part, Tensor) else part,
        example,
    )


def _place(model: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
    """Where the weights are and in which precision it computes, as far as it has weights."""
    tensors: list[Tensor] = [tensor for tensor in model.parameters() if tensor.is_floating_point()]
    if not tensors:  # a net whose weights are all codes
        tensors = [
            getattr(module, name).detach()
            for module in model.modules()
            if parametrize.is_parametrized(module)
            for name in [name for name, _ in cast(nn.ModuleDict, module.parametrizations).items()][:1]
        ][:1]
    tensors = tensors or list(model.buffers())
    dtype = tensors[0].dtype if tensors and tensors[0].is_floating_point() else None
    return (tensors[0].device, dtype) if tensors else (None, None)


def _moved(tensor: Tensor, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def call(model: nn.Module, inputs: Example) -> Any:
    """The model's output: a tuple holds positional inputs, a dict named ones where the forward has such names."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    if isinstance(inputs, Mapping):
        parameters = inspect.signature(model.forward).parameters
        open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
        if open_ended or all(name in parameters for name in inputs):
            return model(**inputs)
    return model(inputs)


def uncompiled() -> contextlib.AbstractContextManager[object]:
    """Inside: what was compiled, modules or functions, runs as it was written. Without dynamo nothing was."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def as_judged(model: nn.Module) -> Iterator[None]:
    """Inside: eval mode, no gradients, nothing fused or compiled (its parts would be hidden). Afterwards: as before."""
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules if hasattr(module, "training")]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        with torch.no_grad(), uncompiled():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def while_hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Inside: hooks that were registered are in place. Afterwards: they are gone."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(model: nn.Module, inputs: Example) -> None:
    """One forward pass. `InputError` with the net's own complaint when it cannot take such inputs."""
    try:
        call(model, inputs)
    except Exception as error:
        shapes = [" x ".join(map(str, part.shape)) for part in tree_leaves(inputs) if isinstance(part, Tensor)]
        images = isinstance(inputs, Tensor)
        what = f"images of {shapes[0]} (B x C x H x W)" if images else f"inputs of {', '.join(shapes)}"
        raise InputError(f"{type(model).__name__} does not run on {what}: {error}") from error


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
