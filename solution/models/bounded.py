"""A limit for nets that a file describes: what it says is not believed with all of the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from solution.contracts import InputError

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
