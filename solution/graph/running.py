"""Run a net for measuring only: in eval mode, without gradients, and leave it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from solution.contracts import InputError


def images_for(model: nn.Module, images: Tensor) -> Tensor:
    """`images` (B, C, H, W) on the device and in the precision of the model's weights."""
    if images.dim() < 2 or len(images) == 0:
        raise InputError(f"an example must be a batch of at least one image, got the shape {tuple(images.shape)}")
    weight = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), None)
    if weight is not None:
        return images.to(device=weight.device, dtype=weight.dtype)
    stored = next(model.buffers(), None)  # a net whose weights are all codes
    return images if stored is None else images.to(stored.device)


@contextlib.contextmanager
def as_judged(model: nn.Module) -> Iterator[None]:
    """Inside: eval mode, no gradients, nothing fused or compiled (its parts would be hidden). Afterwards: as before."""
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules if hasattr(module, "training")]
    compiled = any(hasattr(module, "_orig_mod") for module in modules)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
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


def run(model: nn.Module, images: Tensor) -> None:
    """One forward pass. `InputError` with the net's own complaint when it cannot take such images."""
    try:
        model(images)
    except Exception as error:
        shape = " x ".join(str(size) for size in images.shape)
        raise InputError(
            f"{type(model).__name__} does not run on images of {shape} (B x C x H x W): {error}"
        ) from error
