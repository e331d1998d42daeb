"""Mixed precision: every layer takes the fewest bits that it stands, under one budget for all.

Sensitivity is measured, not modeled: one layer at a time is rounded, and the answers on images are compared with
those of the float net (Kullback-Leibler divergence, after Cai et al., 2020, "ZeroQ", arXiv:2001.00281). Summed over
layers it predicts the divergence of a mix well enough to order the steps down; the budget itself is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solution.compress.quantization.codes import plain
from solution.compress.quantization.layers import channel_axis
from solution.compress.quantization.scales import on_grid
from solution.compress.quantization.schemes import SCHEMES
from solution.contracts import InputError
from solution.losses.distillation import divergence

Mix = dict[str, str]
"""{layer: the name of its scheme}."""

_SCALE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Mixes from the most bits to the fewest, one layer changed at a time, least harm for the bytes saved first.

    saved[i]: bytes that the i-th mix saves, compared with the 0-th.
    """

    mixes: tuple[Mix, ...]
    saved: tuple[int, ...]


def weight_bytes(module: nn.Module, name: str) -> int:
    """Bytes of a layer's weight in a scheme, scales included."""
    weight, scheme = module.weight, SCHEMES[name]
    scales = 0 if scheme.dtype is not None else weight.shape[channel_axis(module)] * _SCALE_BITS
    return -(-(weight.numel() * scheme.bits + scales) // 8)


def sensitivities(
    model: nn.Module, paths: Sequence[str], names: Sequence[str], images: list[Tensor]
) -> dict[tuple[str, str], float]:
    """{(layer, scheme): mean divergence of the answers, in nats, when this layer alone is rounded}."""
    probe = copy.deepcopy(model).eval()
    for path in paths:
        plain(probe.get_submodule(path))
    exact = _answers(probe, images)
    found = {}
    for path in paths:
        module = probe.get_submodule(path)
        kept = module.weight.detach().clone()
        for name in names:
            with torch.no_grad():
                module.weight.copy_(on_grid(kept, SCHEMES[name], channel_axis(module)))
            found[path, name] = float(divergence(_answers(probe, images), exact))
        with torch.no_grad():
            module.weight.copy_(kept)
    return found


def _answers(model: nn.Module, images: list[Tensor]) -> Tensor:
    """(N, classes) logits."""
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in images])


def steps_down(
    model: nn.Module, names: Sequence[str], harm: dict[tuple[str, str], float], paths: Sequence[str]
) -> Steps:
    """The order in which layers give up bits. `names` go from the most bits to the fewest."""
    mix, mixes, saved = dict.fromkeys(paths, names[0]), [], [0]
    mixes.append(dict(mix))
    while moves := [(path, lower) for path, name in mix.items() for lower in names[names.index(name) + 1 :]]:

        def price(move: tuple[str, str]) -> float:
            path, lower = move
            more = max(harm[path, lower] - harm[path, mix[path]], 0.0)
            return more / max(_gain(model, path, mix[path], lower), 1)

        path, lower = min(moves, key=price)
        saved.append(saved[-1] + _gain(model, path, mix[path], lower))
        mix[path] = lower
        mixes.append(dict(mix))
    return Steps(mixes=tuple(mixes), saved=tuple(saved))


def _gain(model: nn.Module, path: str, name: str, lower: str) -> int:
    module = model.get_submodule(path)
    return weight_bytes(module, name) - weight_bytes(module, lower)


def first_within(steps: Steps, excess_bytes: int) -> Mix:
    """The first mix that saves `excess_bytes`. `InputError` that says how much can be saved when none does."""
    for mix, saved in zip(steps.mixes, steps.saved, strict=True):
        if saved >= excess_bytes:
            return mix
    raise InputError(
        f"the byte budget cannot be met: the fewest bits of every layer are {excess_bytes - steps.saved[-1]:,} bytes "
        "above it; allow lower schemes, or keep the other parameters in half precision"
    )


def last_good(steps: Steps, good: Callable[[Mix], bool]) -> Mix:
    """The mix with the fewest bytes that is `good`, by bisection: a mix after a bad one is taken to be bad too."""
    if not good(steps.mixes[0]):
        raise InputError("already the scheme with the most bits costs more quality than f1_drop allows")
    low, high = 0, len(steps.mixes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(steps.mixes[middle]) else (low, middle)
    return steps.mixes[low]
