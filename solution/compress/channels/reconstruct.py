"""After a cut, layers that read fewer channels are fitted to give what they gave before.

Least squares on what arrives at them in the cut net, layer after layer (He et al., 2017, arXiv:1707.06168; Luo et al.,
2017, arXiv:1707.06342), held near the weights that the cut left. Plain convolutions and linear layers that run once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.graph.observe import After, modules_at, observe
from solution.graph.running import as_judged

POSITIONS = 64
"""So many positions of each feature map are looked at."""
RIDGE = 1e-3
"""How firmly weights are held, as a fraction of the mean square of what they read."""

Samples = list[tuple[Tensor, Tensor]]
"""For each batch: the positions looked at (P,), and the outputs there (B * P, channels)."""


def reconstruct(cut: nn.Module, full: nn.Module, rows: Mapping[str, Sequence[int]], images: Sequence[Tensor]) -> None:
    """Fit the layers of `cut`, in place.

    full    the net before the cut
    rows    layer -> which of its outputs in `full` are left in `cut`, in order; all where it is not named
    images  batches (B, C, H, W)
    """
    with as_judged(cut), as_judged(full):
        paths = _in_order(cut, _thinned(cut, full), images[0][:1])
        wanted = _outputs(full, paths, images)
        for path in paths:
            layer: Any = cut.get_submodule(path)
            batches = zip(_inputs(cut, path, images), wanted[path], strict=True)
            read = torch.cat([_samples(_patches(layer, x), positions) for x, (positions, _) in batches])
            outputs_before = torch.cat([outputs for _, outputs in wanted[path]])
            _fit(layer, read, outputs_before[:, list(rows[path])] if path in rows else outputs_before)


def _thinned(cut: nn.Module, full: nn.Module) -> list[str]:
    """Layers that can be fitted and read less than before."""
    before = dict(full.named_modules())
    return [path for path, layer in cut.named_modules() if _is_plain(layer) and _reads(layer) < _reads(before[path])]


def _is_plain(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _reads(layer: Any) -> int:
    return layer.weight.shape[1]


def _in_order(net: nn.Module, paths: Sequence[str], image: Tensor) -> list[str]:
    """`paths` in the order in which they run; those that run more than once are left out."""
    ran: list[str] = []
    _watched(net, paths, [image], lambda path, *_: ran.append(path))
    return [path for path in dict.fromkeys(ran) if ran.count(path) == 1]


def _outputs(net: nn.Module, paths: Sequence[str], images: Sequence[Tensor]) -> dict[str, Samples]:
    """What each layer gives, at a few random positions, the same for all images of a batch."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Samples] = {path: [] for path in paths}

    def note(path: str, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        flat = output.flatten(2) if isinstance(layer, nn.Conv2d) else _channels_first(output)
        positions = torch.randperm(flat.shape[2], generator=generator)[:POSITIONS]
        found[path].append((positions, _samples(flat, positions)))

    _watched(net, paths, images, note)
    return found


def _watched(net: nn.Module, paths: Sequence[str], images: Sequence[Tensor], note: After) -> None:
    """Run `net` on `images`; `note` gets what the modules at `paths` return."""
    with observe(modules_at(net, paths), after=note):
        for batch in images:
            net(batch)


class _ReachedError(Exception):
    """The layer that is waited for has been reached."""


def _inputs(net: nn.Module, path: str, images: Sequence[Tensor]) -> Iterator[Tensor]:
    """What arrives at a layer. The pass ends there."""
    caught: list[Tensor] = []

    def catch(path: str, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        caught.append(inputs[0])
        raise _ReachedError

    with observe(modules_at(net, (path,)), before=catch):
        for batch in images:
            with suppress(_ReachedError):
                net(batch)
            yield caught.pop()


def _patches(layer: Any, x: Tensor) -> Tensor:
    """(B, weights of one output, positions): what each output is a weighted sum of."""
    if isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str):
        return F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return _channels_first(x)


def _channels_first(x: Tensor) -> Tensor:
    """(B, ..., C) to (B, C, positions)."""
    return x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)


def _samples(flat: Tensor, positions: Tensor) -> Tensor:
    """(B, C, all positions) to (B * positions, C)."""
    return flat[:, :, positions].transpose(1, 2).flatten(0, 1)


def _fit(layer: nn.Conv2d | nn.Linear, read: Tensor, wanted: Tensor) -> None:
    """The smallest change of weights and bias with which ``read`` (N, weights) gives ``wanted`` (N, outputs)."""
    read, weight = read.double(), layer.weight.flatten(1).double()
    if layer.bias is not None:
        read = torch.cat([read, read.new_ones(len(read), 1)], 1)
        weight = torch.cat([weight, layer.bias.double()[:, None]], 1)
    gram = read.T @ read
    hold = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weight = weight + torch.linalg.solve(gram + hold, read.T @ (wanted.double() - read @ weight.T)).T
    if layer.bias is not None:
        weight, bias = weight[:, :-1], weight[:, -1]
        layer.bias.copy_(bias)
    layer.weight.copy_(weight.view_as(layer.weight))
