"""Inputs of layers on a grid of integers: a pre-hook that rounds what a layer is given, as an int8 runtime does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from solution.compress.quantization.learned import clipped_to_grid

NAME = "input_grid"


class InputGrid(nn.Module):
    """One step for the whole input. State: ``scale`` (1,), a parameter when it learns, else a buffer.

    The zero point is in the levels: they run from ``-zero`` to ``2**bits - 1 - zero``, so that 0 is exact.
    """

    def __init__(self, bits: int, low: float, high: float, learn: bool) -> None:
        """A grid for inputs from `low` to `high`; `learn` lets its step train (LSQ)."""
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-12) / (2**bits - 1)
        self.bits = bits
        self.low = -round(-low / scale)
        self.high = 2**bits - 1 + self.low
        step = torch.tensor([scale])
        if learn:
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


def _round_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (module.get_submodule(NAME)(inputs[0]), *inputs[1:])


def quantize_inputs(module: nn.Module, grid: InputGrid) -> None:
    """Let `module` see its input through `grid`. A deep copy of it keeps both."""
    if not hasattr(module, NAME):
        module.register_forward_pre_hook(_round_inputs)
    module.add_module(NAME, grid)
