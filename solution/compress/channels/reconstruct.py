"""After a cut, layers that read fewer channels are fitted to give what they gave before.

Least squares on what arrives at them in the cut net, layer after layer (He et al., 2017, arXiv:1707.06168; Luo et al.,
2017, arXiv:1707.06342), held near the weights that the cut left. How firmly, pictures decide that no fit has seen: a
layer whose outputs come no nearer there, by more than chance, stays as it is. Convolutions, grouped or not, and linear
layers that run once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from solution.compress.factors import patches
from solution.graph import After, as_judged, modules_at, observe

POSITIONS = 64
"""So many positions of each feature map are looked at."""
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""How firmly weights are held, as fractions of the mean square of what they read; the best of these is taken."""
HELD_OUT = 4
"""Every so many-th picture decides, and is not fitted to."""

Samples = list[tuple[Tensor, Tensor]]
"""For each batch: the positions looked at (P,), and the outputs there (B, P, channels)."""


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
            read, given = [], []
            for x, (positions, outputs) in zip(_inputs(cut, path, images), wanted[path], strict=True):
                seen = patches(layer, x).unflatten(0, (len(x), -1))[:, positions]  # (B, P, G, D)
                read.append(seen)
                given.append(outputs[:, :, list(rows[path])] if path in rows else outputs)
            _fit(layer, torch.cat(read).double(), torch.cat(given).double())


def held_out(images: Sequence[Tensor]) -> list[Tensor]:
    """The pictures of `images` that no layer is fitted to; all when there are too few to leave some out."""
    together = torch.cat(list(images))
    return [together[HELD_OUT - 1 :: HELD_OUT] if len(together) >= HELD_OUT else together]


def _thinned(cut: nn.Module, full: nn.Module) -> list[str]:
    """Layers that can be fitted and whose outputs are sums of less than before."""
    before = dict(full.named_modules())
    return [path for path, layer in cut.named_modules() if _is_plain(layer) and _reads(layer) < _reads(before[path])]


def _is_plain(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros")


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
        last = output.flatten(2).transpose(1, 2) if isinstance(layer, nn.Conv2d) else output
        places = last.reshape(len(output), -1, last.shape[-1])  # (B, all positions, channels)
        positions = torch.randperm(places.shape[1], generator=generator)[:POSITIONS]
        found[path].append((positions, places[:, positions]))

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


def _fit(layer: nn.Conv2d | nn.Linear, read: Tensor, wanted: Tensor) -> None:
    """A small change of weights and bias with which ``read`` (B, P, G, D) nearly gives ``wanted`` (B, P, outputs)."""
    num_groups = read.shape[2]
    weight = layer.weight.flatten(1).double().unflatten(0, (num_groups, -1))  # (G, O, D)
    read, wanted = read.permute(2, 0, 1, 3), wanted.unflatten(2, (num_groups, -1)).permute(2, 0, 1, 3)  # (G, B, P, _)
    if layer.bias is not None:
        read = torch.cat([read, torch.ones_like(read[..., :1])], 3)
        weight = torch.cat([weight, layer.bias.double().view(num_groups, -1, 1)], 2)
    missing = wanted - torch.einsum("gbpd,god->gbpo", read, weight)
    decides = torch.arange(read.shape[1], device=read.device) % HELD_OUT == HELD_OUT - 1
    if not decides.any():
        decides[-1] = True
    fitted, unseen = (
        [tensor[:, which].flatten(1, 2) for tensor in (read, missing)] for which in (~decides, decides)
    )  # each (G, B * P, D) and (G, B * P, O)
    energies, vectors = torch.linalg.eigh(fitted[0].mT @ fitted[0])
    pull = vectors.mT @ (fitted[0].mT @ fitted[1])
    num_unseen = int(decides.sum())
    lost = _each(unseen[1], num_unseen)
    least, best = lost.mean(), None
    for ridge in RIDGES:
        hold = ridge * energies.mean(1, keepdim=True) + 1e-12
        change = (vectors @ (pull / (energies.clamp(min=0) + hold)[..., None])).mT  # (G, O, D)
        gains = lost - _each(unseen[1] - unseen[0] @ change.mT, num_unseen)
        doubt = gains.std() / num_unseen**0.5 if num_unseen > 1 else gains.mean().abs() / 2
        if gains.mean() > doubt and lost.mean() - gains.mean() < least:
            least, best = lost.mean() - gains.mean(), change
    if best is None:
        return
    weight = weight + best
    if layer.bias is not None:
        layer.bias.copy_(weight[..., -1].flatten())
        weight = weight[..., :-1]
    layer.weight.copy_(weight.reshape(layer.weight.shape))


def _each(errors: Tensor, num_pictures: int) -> Tensor:
    """(B,) the squares of ``errors`` (G, B * P, O) summed for each picture."""
    return errors.unflatten(1, (num_pictures, -1)).square().sum((0, 2, 3))
