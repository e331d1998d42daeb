"""Whether an exported file computes what its net computes: number by number on real images, by quality on val."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from solution import tasks
from solution.compress.quantization.forms import InputGrid
from solution.contracts import CLASSIFICATION, Batches
from solution.evaluate.classify import Predict
from solution.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What may differ.

    error      root mean square of the outputs' difference, as a share of the outputs' standard deviation
    agreement  least share of images whose likeliest class is the same
    drop       most of the main figure (macro F1, mAP) that may be lost on val, as a fraction of 1
    """

    error: float
    agreement: float
    drop: float


ROUNDING = Tolerance(error=0.03, agreement=0.95, drop=0.003)
"""Of a net whose layers round their inputs: the last bit of a sum may decide on a whole step, and runtimes sum in other
orders. So do PyTorch's own kernels, whose logits then differ from each other by up to 0.01."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is compared of the nets of one task.

    outputs       what they are called
    num_images    on so many images outputs are compared number by number
    errors        {precision: `Tolerance.error`}
    agreements    {precision: `Tolerance.agreement`}; none where images have no likeliest class
    fine_outputs  outputs need finer steps than int8 has, such as corners in pixels. What is behind the last layers
                  stays in float, and no class shares decide which layers do
    not_alone     why a file alone cannot be exported; "" where it can
    """

    task: Task
    outputs: str
    num_images: int
    errors: Mapping[str, float]
    agreements: Mapping[str, float] = field(default_factory=dict)
    fine_outputs: bool = False
    not_alone: str = ""

    def tolerance(self, precision: str) -> Tolerance:
        """What a file in `precision` may differ by."""
        kind, _, _ = precision.partition("_")
        agreement, drop = self.agreements.get(kind, 0), self.task.most_lost[kind]
        return Tolerance(error=self.errors[kind], agreement=agreement, drop=drop)


COMPARED = {
    compared.task.name: compared
    for compared in (
        Compared(
            task=tasks.CLASSIFICATION,
            outputs="logits",
            num_images=64,
            errors={"fp32": 1e-4, "fp16": 1e-2, "int8": 0.3},
            agreements={"fp32": 0.98, "fp16": 0.95, "int8": 0.85},
        ),
        Compared(
            task=tasks.DETECTION,
            outputs="scores",
            num_images=8,
            errors={"fp32": 1e-3, "fp16": 1e-2, "int8": 0.5},
            fine_outputs=True,
            not_alone="is a detector: its recipe exports it, with pictures that have boxes",
        ),
        Compared(
            task=tasks.SEGMENTATION,
            outputs="logits of pixels",
            num_images=16,
            errors={"fp32": 1e-4, "fp16": 1e-2, "int8": 0.3},
            agreements={"fp32": 0.98, "fp16": 0.95, "int8": 0.85},
        ),
    )
}
"""{task: what is compared}."""


def simulates(net: nn.Module) -> bool:
    """Whether `net` computes integers in floats."""
    return any(isinstance(module, InputGrid) for module in net.modules())


def tolerance_for(net: nn.Module, precision: str, task: str = CLASSIFICATION) -> Tolerance:
    """What may differ between `net` and its file in `precision`."""
    return ROUNDING if simulates(net) and not precision.startswith("int8") else COMPARED[task].tolerance(precision)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was measured.

    before, after  quality of the net in PyTorch and of the file in its runtime; empty when it cannot be judged, for
                   lack of class names or of data
    """

    compared: Compared
    num_images: int
    error: float
    agreement: float
    tolerance: Tolerance
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)

    @property
    def drop(self) -> float:
        """What is lost of the main figure on val; 0 when it was not judged."""
        return self.before[self.compared.task.figure] - self.after[self.compared.task.figure] if self.after else 0.0

    @property
    def failures(self) -> tuple[str, ...]:
        """What is beyond its tolerance; written so that a figure which is not a number is, too."""
        checks = {
            self.compared.outputs: self.error <= self.tolerance.error,
            "top-1 agreement": self.agreement >= self.tolerance.agreement,
            self.compared.task.title: self.drop <= self.tolerance.drop,
        }
        return tuple(name for name, fine in checks.items() if not fine)

    def __str__(self) -> str:
        limit, own = self.tolerance, self.compared
        lines = [
            f"{own.outputs} differ by {self.error:.2e} of their spread (limit {limit.error:.0e}) on "
            f"{self.num_images} images"
        ]
        if own.agreements:
            lines.append(f"top-1 agrees on {self.agreement:.1%} of them (limit {limit.agreement:.0%})")
        if self.after:
            before, after = self.before[own.task.figure], self.after[own.task.figure]
            lines.append(
                f"{own.task.title} on val: {before:.4f} in PyTorch, {after:.4f} in the file (may lose {limit.drop:.4f})"
            )
        return "\n".join(lines)


def compare(
    net: Predict, exported: Predict, images: Tensor, tolerance: Tolerance, compared: Compared = COMPARED[CLASSIFICATION]
) -> Parity:
    """Run both on `images` (N, C, H, W)."""
    with torch.inference_mode():
        wanted, got = net(images).float(), exported(images).float()  # (N, num_classes), or (N, 4 + C, M)
    same = (got.argmax(1) == wanted.argmax(1)).float().mean() if compared.agreements else torch.ones(())
    first = compared.task.extra_outputs
    error = relative_error(got[:, first:], wanted[:, first:])
    return Parity(compared=compared, num_images=len(images), error=error, agreement=float(same), tolerance=tolerance)


def judged(
    parity: Parity, net: Predict, exported: Predict, loaders: Any, before: Mapping[str, float] | None = None
) -> Parity:
    """`parity` with the quality of both on val; `before` is that of the net where it is known, on train too perhaps."""
    task = parity.compared.task
    before = before or task.judge(net, loaders.val)
    after = task.judge(exported, loaders.val)
    if f"train_{task.figure}" in before:
        after |= {f"train_{name}": value for name, value in task.judge(exported, loaders.seen).items()}
    return replace(parity, before=before, after=after)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, as a share of the standard deviation of `wanted`."""
    return float((got - wanted).square().mean().sqrt() / wanted.std().clamp_min(1e-12))


def spread(batches: Batches, count: int) -> Tensor:
    """At most `count` images, evenly spread over batches that may be sorted by class."""
    kept = list(batches) if not isinstance(batches, Sized) else batches
    share = -(-count // max(len(kept), 1))
    parts = [images[torch.linspace(0, len(images) - 1, min(share, len(images))).long()] for images, _ in kept]
    return torch.cat(parts)[:count]
