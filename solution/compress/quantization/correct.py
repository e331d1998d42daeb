"""Bias correction (Nagel et al., 2019, arXiv:1906.04721): rounding shifts the mean of a layer's outputs; undo that.

The shift is measured on calibration images, layer after layer in the order in which they run, so that each sees what
the corrections before it left over. It goes into the layer's bias, or into the running mean of the norm behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from solution.compress.quantization.codes import set_values


def channel_means(output: Tensor, module: nn.Module) -> Tensor:
    """(C,) the mean of each output channel."""
    axis = output.dim() - 1 if isinstance(module, nn.Linear) else 1
    return output.movedim(axis, 0).flatten(1).mean(1)


def correct(model: nn.Module, exact: nn.Module, places: Mapping[str, str], batches: Iterable[Tensor]) -> None:
    """Correct `model`, in place, so that its layers' outputs have on average the means that they have in `exact`.

    places: {layer: its own path, when it has a bias, else the path of the norm behind it}.
    """
    shift = dict.fromkeys(places, 0.0)
    batches = list(batches)
    total = sum(len(images) for images in batches)
    for images in batches:
        for path, found in shifts(model, exact, tuple(places), images).items():
            shift[path] = shift[path] + found * len(images) / total
    for path, place in places.items():
        module = model.get_submodule(place)
        if place == path:
            set_values(module, "bias", module.bias.detach() - shift[path])
        else:
            module.running_mean.add_(shift[path])


def shifts(model: nn.Module, exact: nn.Module, paths: tuple[str, ...], images: Tensor) -> dict[str, Tensor]:
    """{layer: (C,) how far the mean of its outputs lies above the exact one, once all before it are corrected}."""
    wanted: dict[str, list[Tensor]] = {path: [] for path in paths}
    found: dict[str, list[Tensor]] = {path: [] for path in paths}

    def note(path: str, module: nn.Module, output: Tensor) -> None:
        wanted[path].append(channel_means(output, module))

    def mend(path: str, module: nn.Module, output: Tensor) -> Tensor:
        means = channel_means(output, module)
        shift = means - wanted[path][len(found[path])]
        found[path].append(shift)
        axis = output.dim() - 1 if isinstance(module, nn.Linear) else 1
        return output - shift.view([-1 if dim == axis else 1 for dim in range(output.dim())])

    for net, see in ((exact.eval(), note), (model.eval(), mend)):
        _run(net, paths, see, images)
    return {path: torch.stack(found[path]).mean(0) for path in paths}


def _run(
    model: nn.Module, paths: Iterable[str], see: Callable[[str, nn.Module, Tensor], Tensor | None], images: Tensor
) -> None:
    with ExitStack() as stack, torch.no_grad():
        for path in paths:
            module = model.get_submodule(path)
            handle = module.register_forward_hook(lambda module, _, out, path=path: see(path, module, out))
            stack.callback(handle.remove)
        model(images)
