"""Which operations of a bf16 training run in float32, because they are slow in bf16 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Float32Depthwise(TorchFunctionMode):
    """While open, bf16 depthwise convolutions of a stride or of 5x5 and more run in float32 on the CPU.

    oneDNN's backward pass for these is up to ten times as slow in bf16; everything else is faster in bf16. Outside
    autocast nothing changes.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        """`function(*arguments, **named)`, in float32 where that is faster."""
        named = named or {}
        if function is not torch.conv2d or len(arguments) < 4 or not torch.is_autocast_enabled("cpu"):
            return function(*arguments, **named)
        images, weight, _, stride = arguments[:4]
        depthwise = weight.shape[1] == 1 < images.shape[1]
        if not depthwise or (weight.shape[2] <= 3 and stride in (1, (1, 1))):
            return function(*arguments, **named)
        half = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return function(images.float(), *arguments[1:], **named).to(half)
