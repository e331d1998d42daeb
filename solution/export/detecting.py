"""What is different about exporting a detector: which layers int8 spares, and what its proof compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solution.evaluate.detect import Predict, detect
from solution.export import openvino_file
from solution.export.parity import relative_error

NUM_IMAGES = 8
_LIMITS = {"fp32": (1e-3, 0.002), "fp16": (1e-2, 0.005), "int8": (0.5, 0.05)}
"""{precision: (what scores may differ by, as a share of their spread; most mAP that may be lost on val)}."""


@dataclass(frozen=True, kw_only=True)
class DetectorParity:
    """As `Parity`, for detectors. `before` and `after`: quality of the net in PyTorch and of the file in its runtime.

    error  root mean square of the difference of the scores, as a share of their standard deviation
    """

    num_images: int
    error: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    precision: str

    @property
    def failures(self) -> tuple[str, ...]:
        """What is beyond its limit; written so that a figure which is not a number is, too."""
        error, drop = _LIMITS[self.precision]
        checks = {"scores": self.error <= error, "mAP": self.before["map"] - self.after["map"] <= drop}
        return tuple(name for name, fine in checks.items() if not fine)

    def __str__(self) -> str:
        error, drop = _LIMITS[self.precision]
        return (
            f"scores differ by {self.error:.2e} of their spread (limit {error:.0e}) on {self.num_images} images\n"
            f"mAP50-95 on val: {self.before['map']:.4f} in PyTorch, {self.after['map']:.4f} in the file "
            f"(may lose {drop:.3f})"
        )


def compare(
    net: Predict, exported: Predict, loaders: Any, before: Mapping[str, float], precision: str
) -> DetectorParity:
    """Judge the file as the net was judged to find `before`: on val, and on train where the net was."""
    images = next(iter(loaders.val))[0][:NUM_IMAGES]
    with torch.inference_mode():
        wanted, got = net(images)[:, 4:], exported(images)[:, 4:]  # (B, C, N)
    after = detect(exported, loaders.val).quality()
    if "train_map" in before:
        after |= {f"train_{name}": value for name, value in detect(exported, loaders.seen).quality().items()}
    error = relative_error(got, wanted)
    return DetectorParity(num_images=len(images), error=error, before=before, after=after, precision=precision)


def quantized(kind: Any, net: nn.Module, images: list[Tensor]) -> Any:
    """The int8 graph, calibrated on all of `images`, each (1, 3, H, W), normalized.

    Depthwise layers stay in float, where they are faster, and so does what follows the last layers: corners in pixels
    need finer steps than int8 has.
    """
    graph = kind.base(net, torch.cat([images[0], images[0]]))
    if kind is not openvino_file:
        return kind.quantized(graph, images, kind.depthwise(graph))
    in_float = dict.fromkeys([*kind.depthwise(graph), *kind.after_weights(graph)])
    return kind.quantized(graph, images, list(in_float), typical=True)
