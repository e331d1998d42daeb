"""Whether an exported file says what its net says: number by number on 64 real images, by quality on all of val."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solution.compress.quantization.activations import InputGrid
from solution.contracts import Batches
from solution.evaluate.classify import Predict, classify

NUM_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What may differ.

    error      root mean square of the logits' difference, as a share of the logits' standard deviation
    agreement  least share of images whose likeliest class is the same
    f1_drop    most macro F1 that may be lost on val, as a fraction of 1
    """

    error: float
    agreement: float
    f1_drop: float


TOLERANCES = {
    "fp32": Tolerance(error=1e-4, agreement=0.98, f1_drop=0.001),
    "fp16": Tolerance(error=1e-2, agreement=0.95, f1_drop=0.003),
    "int8": Tolerance(error=0.3, agreement=0.85, f1_drop=0.02),
}

ROUNDING = Tolerance(error=0.03, agreement=0.95, f1_drop=0.003)
"""Of a net whose layers round their inputs: the last bit of a sum may decide on a whole step, and runtimes sum in other
orders. So do PyTorch's own kernels, whose logits then differ from each other by up to 0.01."""


def simulates(net: nn.Module) -> bool:
    """Whether `net` computes integers in floats."""
    return any(isinstance(module, InputGrid) for module in net.modules())


def tolerance_for(net: nn.Module, precision: str) -> Tolerance:
    """What may differ between `net` and its file in `precision`."""
    return ROUNDING if simulates(net) and precision != "int8" else TOLERANCES[precision]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was measured. `before` and `after`: quality of the net in PyTorch and of the file in its runtime."""

    num_images: int
    error: float
    agreement: float
    before: dict[str, float]
    after: dict[str, float]
    tolerance: Tolerance

    @property
    def f1_drop(self) -> float:
        """Macro F1 lost on val."""
        return self.before["f1"] - self.after["f1"]

    @property
    def failures(self) -> tuple[str, ...]:
        """What is beyond its tolerance; written so that a figure which is not a number is, too."""
        checks = {
            "logits": self.error <= self.tolerance.error,
            "top-1 agreement": self.agreement >= self.tolerance.agreement,
            "macro F1": self.f1_drop <= self.tolerance.f1_drop,
        }
        return tuple(name for name, fine in checks.items() if not fine)

    def __str__(self) -> str:
        limit = self.tolerance
        return (
            f"logits differ by {self.error:.2e} of their spread (limit {limit.error:.0e}) on {self.num_images} images\n"
            f"top-1 agrees on {self.agreement:.1%} of them (limit {limit.agreement:.0%})\n"
            f"macro F1 on val: {self.before['f1']:.4f} in PyTorch, {self.after['f1']:.4f} in the file "
            f"(may lose {limit.f1_drop:.4f})"
        )


def compare(net: Predict, exported: Predict, val: Batches, tolerance: Tolerance) -> Parity:
    """Run both on 64 images spread over `val`, then on all of it."""
    images = spread(val, NUM_IMAGES)
    with torch.inference_mode():
        wanted, got = net(images).float(), exported(images).float()  # (N, num_classes)
    return Parity(
        num_images=len(images),
        error=relative_error(got, wanted),
        agreement=float((got.argmax(1) == wanted.argmax(1)).float().mean()),
        before=classify(net, val).quality(),
        after=classify(exported, val).quality(),
        tolerance=tolerance,
    )


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, as a share of the standard deviation of `wanted`."""
    return float((got - wanted).square().mean().sqrt() / wanted.std().clamp_min(1e-12))


def spread(batches: Batches, count: int) -> Tensor:
    """At most `count` images, evenly spread over batches that may be sorted by class."""
    kept = list(batches) if not isinstance(batches, Sized) else batches
    share = -(-count // max(len(kept), 1))
    parts = [images[torch.linspace(0, len(images) - 1, min(share, len(images))).long()] for images, _ in kept]
    return torch.cat(parts)[:count]
