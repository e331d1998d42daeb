"""Weights from a file, or of a net with the same names, put into a net of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from solution.contracts import InputError

OWN = "own"
"""In place of a file's path: the weights that the net's own library downloads."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file. `InputError` when there is none, or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"there are no weights at {path}: give a .safetensors file with --weights, or {OWN!r}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no whole .safetensors file ({error})") from error


def fill(net: nn.Module, state: dict[str, Tensor], said: str) -> None:
    """Load `state`; `said` is where it came from. `InputError` when names or shapes are another net's."""
    own = net.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if wrong:
        raise InputError(f"{said}: its weights are of another net ({len(wrong)} differ: {wrong[0]} ...)")
    net.load_state_dict(state)


_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_SHAPING = ("size", "dtype", "fill_value")
_OWN_BYTES = 1 << 14
"""What a tensor takes besides its numbers, with the module around it."""


class Bounded(TorchFunctionMode):
    """While open, tensors made of sizes alone, as weights are, take no more than `most_bytes` in all.

    `InputError` before the memory is asked for. Building on the device "meta" would ask for none, but some nets find
    their sizes by calculating with tensors, which have no numbers there.
    """

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._left = most_bytes

    def __torch_function__(
        self, func: Callable, types: tuple[type, ...], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            shaping = {name: value for name, value in kwargs.items() if name in _SHAPING}
            self._left -= _OWN_BYTES + func(*args, **shaping, device="meta").nbytes
            if self._left < 0:
                raise InputError("it would be larger than any net that such a small file can be of")
        return func(*args, **kwargs)
