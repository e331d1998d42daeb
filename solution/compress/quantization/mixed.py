"""Which layers take fewer bits and which stay in float, by measurement.

Mixed precision: every layer takes the fewest bits that it stands, under one budget for all.

Sensitivity is measured, not modeled: one layer at a time is rounded, and the logits of images are compared with
those of the float net (Kullback-Leibler divergence, after Cai et al., 2020, "ZeroQ", arXiv:2001.00281). Summed over
layers it predicts the divergence of a mix well enough to order the steps down; the budget itself is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solution.compress.layers import channel_axis, is_depthwise
from solution.compress.parametrized import plain
from solution.compress.quantization.plan import QuantizePlan
from solution.compress.quantization.schemes import SCHEMES, on_grid
from solution.contracts import InputError, copied
from solution.graph import images_for
from solution.losses.distillation import divergence

Mix = dict[str, str]
"""{layer: the name of its scheme}."""

_SCALE_BITS = 16
GROUPS = ("first", "last", "depthwise")
WORTH = 0.005
"""Mean cross-entropy that leaving a group in float must save; less is within the difference between dev splits."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Mixes from the most bits to the fewest, one layer changed at a time, least harm for the bytes saved first.

    saved[i]: bytes that the i-th mix saves, compared with the 0-th.
    """

    mixes: tuple[Mix, ...]
    saved: tuple[int, ...]


def weight_bytes(module: Any, name: str) -> int:
    """Bytes of a layer's weight in a scheme, scales included."""
    weight, scheme = module.weight, SCHEMES[name]
    scales = 0 if scheme.dtype is not None else weight.shape[channel_axis(module)] * _SCALE_BITS
    return -(-(weight.numel() * scheme.bits + scales) // 8)


def sensitivities(
    model: nn.Module, paths: Sequence[str], names: Sequence[str], images: list[Tensor]
) -> dict[tuple[str, str], float]:
    """{(layer, scheme): mean divergence of the class probabilities, in nats, when this layer alone is rounded}."""
    probe = copied(model).eval()
    for path in paths:
        plain(probe.get_submodule(path))
    exact = _logits(probe, images)
    found = {}
    for path in paths:
        module: Any = probe.get_submodule(path)
        kept = module.weight.detach().clone()
        for name in names:
            with torch.no_grad():
                module.weight.copy_(on_grid(kept, SCHEMES[name], channel_axis(module)))
            found[path, name] = float(divergence(_logits(probe, images), exact))
        with torch.no_grad():
            module.weight.copy_(kept)
    return found


def _logits(model: nn.Module, images: list[Tensor]) -> Tensor:
    """(N, classes) logits."""
    with torch.inference_mode():
        return torch.cat([model(images_for(model, batch)).float() for batch in images])


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
    """The first mix that saves `excess_bytes`. `InputError` with how much can be saved when none does."""
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


def spare(
    plan: QuantizePlan,
    model: nn.Module,
    wanted: tuple[str, ...],
    loss_of: Callable[[QuantizePlan], float],
    log: Callable[[str], None],
) -> QuantizePlan:
    """`plan` without those groups of `wanted` that are better left in float, decided one after another.

    loss_of  mean cross-entropy on the dev split of the net that a plan would ship
    """
    paths, least = tuple(plan.schemes), loss_of(plan)
    depthwise = tuple(path for path in paths if is_depthwise(model.get_submodule(path)))
    for group, members in {"first": paths[:1], "last": paths[-1:], "depthwise": depthwise}.items():
        layers = tuple(path for path in members if path in plan.schemes)
        if group not in wanted or not layers or len(layers) == len(plan.schemes):
            continue
        other = plan.without(layers, f"better so on the dev split ({group})")
        loss = loss_of(other)
        log(f"{group} in float: loss {loss:.4f} on the dev split, quantized {least:.4f}")
        if loss < least - WORTH:
            plan, least = other, loss
    return plan
