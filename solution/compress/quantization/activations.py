"""Inputs of layers on a grid of integers: a pre-hook that rounds what a layer is given, as an int8 runtime does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from solution.compress.quantization.learned import clipped_to_grid

NAME = "input_grid"
_TINY = 1e-12
"""The narrowest range that is divided into steps: an input of zeros has none."""


class InputGrid(nn.Module):
    """Inputs on 2**bits levels, of which 0 is one: ``scale * {low, ..., high}`` with ``high - low = 2**bits - 1``."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits


class FixedGrid(InputGrid):
    """One step for all inputs. State: ``scale`` (1,), a parameter when it learns, else a buffer."""

    def __init__(self, bits: int, low: float, high: float, qat: bool) -> None:
        """A grid for inputs from `low` to `high`; `learn` lets its step train (LSQ)."""
        super().__init__(bits)
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, _TINY) / (2**bits - 1)
        self.low = -round(-low / scale)
        self.high = 2**bits - 1 + self.low
        step = torch.tensor([scale])
        if qat:
            self.scale = nn.Parameter(step)
        else:
            self.register_buffer("scale", step)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, each number at its nearest level."""
        scale = self.scale
        if scale.requires_grad:
            # Section 2.2 of LSQ: steps must not learn faster, relative to their size, than weights.
            factor = (x[0].numel() * max(self.high, -self.low)) ** -0.5
            scale = scale.detach().abs() + (scale.abs() - scale.detach().abs()) * factor
        return clipped_to_grid(x, scale, self.low, self.high)

    def extra_repr(self) -> str:
        """Bits and levels."""
        return f"{self.bits} bits, {self.low} to {self.high}"


class DynamicGrid(InputGrid):
    """A step for each image, from the smallest to the largest number that the layer is given for it. No state.

    An image's answer does not depend on those beside it: each entry of the first axis has a range of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, ...), each number at its nearest level."""
        rest = tuple(range(1, x.dim()))
        seen = x.detach().float()  # in half precision the narrowest range would be 0
        least, most = seen.amin(rest, keepdim=True).clamp(max=0), seen.amax(rest, keepdim=True).clamp(min=0)
        scale = (most - least).clamp_min(_TINY) / (2**self.bits - 1)  # (B, 1, ...)
        low = (least / scale).round()
        return clipped_to_grid(x, scale, low, low + 2**self.bits - 1)

    def extra_repr(self) -> str:
        """Bits."""
        return f"{self.bits} bits"


def _round_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (module.get_submodule(NAME)(inputs[0]), *inputs[1:])


def quantize_inputs(module: nn.Module, grid: InputGrid) -> None:
    """Let `module` see its input through `grid`. A deep copy of it keeps both."""
    if not hasattr(module, NAME):
        module.register_forward_pre_hook(_round_inputs)
    module.add_module(NAME, grid)


def keep_inputs_float(net: nn.Module) -> int:
    """Take the grids of all layers' inputs away, in place, and return how many there were."""
    rounding = [module for module in net.modules() if hasattr(module, NAME)]
    for module in rounding:
        delattr(module, NAME)
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is _round_inputs:
                del module._forward_pre_hooks[key]
    return len(rounding)
