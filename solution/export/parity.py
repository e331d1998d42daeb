"""Whether an exported file computes what its net computes: number by number on real images, by quality on val."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from solution.compress.quantization.forms import InputGrid
from solution.contracts import CLASSIFICATION, DETECTION, Batches
from solution.evaluate.classify import Predict, classify
from solution.evaluate.detect import detect


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
    figure, title the main figure of quality, and how it is called
    num_images    on so many images outputs are compared number by number
    tolerances    {precision: what may differ}
    scores        outputs -> those numbers of them that are compared
    quality       (net, loaders, whether on train too) -> figures
    ranked        whether the likeliest class of each image is compared too
    fine_outputs  outputs need finer steps than int8 has, such as corners in pixels. What is behind the last layers
                  stays in float, and no class shares decide which layers do
    not_alone     why a file alone cannot be exported; "" where it can
    """

    outputs: str
    figure: str
    title: str
    num_images: int
    tolerances: Mapping[str, Tolerance]
    scores: Callable[[Tensor], Tensor]
    quality: Callable[..., dict[str, float]]
    ranked: bool = True
    fine_outputs: bool = False
    not_alone: str = ""


def _classified(predict: Predict, loaders: Any, also_train: bool) -> dict[str, float]:
    return classify(predict, loaders.val).quality()


def _detected(predict: Predict, loaders: Any, also_train: bool) -> dict[str, float]:
    quality = detect(predict, loaders.val).quality()
    seen = detect(predict, loaders.seen).quality() if also_train else {}
    return quality | {f"train_{name}": value for name, value in seen.items()}


COMPARED = {
    CLASSIFICATION: Compared(
        outputs="logits",
        figure="f1",
        title="macro F1",
        num_images=64,
        tolerances={
            "fp32": Tolerance(error=1e-4, agreement=0.98, drop=0.001),
            "fp16": Tolerance(error=1e-2, agreement=0.95, drop=0.003),
            "int8": Tolerance(error=0.3, agreement=0.85, drop=0.02),
        },
        scores=lambda logits: logits,
        quality=_classified,
    ),
    DETECTION: Compared(
        outputs="scores",
        figure="map",
        title="mAP50-95",
        num_images=8,
        tolerances={
            "fp32": Tolerance(error=1e-3, agreement=0, drop=0.002),
            "fp16": Tolerance(error=1e-2, agreement=0, drop=0.005),
            "int8": Tolerance(error=0.5, agreement=0, drop=0.05),
        },
        scores=lambda candidates: candidates[:, 4:],
        quality=_detected,
        ranked=False,
        fine_outputs=True,
        not_alone="is a detector: its recipe exports it, with pictures that have boxes",
    ),
}
"""{task: what is compared}."""


def simulates(net: nn.Module) -> bool:
    """Whether `net` computes integers in floats."""
    return any(isinstance(module, InputGrid) for module in net.modules())


def tolerance_for(net: nn.Module, precision: str, task: str = CLASSIFICATION) -> Tolerance:
    """What may differ between `net` and its file in `precision`."""
    return ROUNDING if simulates(net) and precision != "int8" else COMPARED[task].tolerances[precision]


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
        return self.before[self.compared.figure] - self.after[self.compared.figure] if self.after else 0.0

    @property
    def failures(self) -> tuple[str, ...]:
        """What is beyond its tolerance; written so that a figure which is not a number is, too."""
        checks = {
            self.compared.outputs: self.error <= self.tolerance.error,
            "top-1 agreement": self.agreement >= self.tolerance.agreement,
            self.compared.title: self.drop <= self.tolerance.drop,
        }
        return tuple(name for name, fine in checks.items() if not fine)

    def __str__(self) -> str:
        limit, own = self.tolerance, self.compared
        lines = [
            f"{own.outputs} differ by {self.error:.2e} of their spread (limit {limit.error:.0e}) on "
            f"{self.num_images} images"
        ]
        if own.ranked:
            lines.append(f"top-1 agrees on {self.agreement:.1%} of them (limit {limit.agreement:.0%})")
        if self.after:
            before, after = self.before[own.figure], self.after[own.figure]
            lines.append(
                f"{own.title} on val: {before:.4f} in PyTorch, {after:.4f} in the file (may lose {limit.drop:.4f})"
            )
        return "\n".join(lines)


def compare(
    net: Predict, exported: Predict, images: Tensor, tolerance: Tolerance, compared: Compared = COMPARED[CLASSIFICATION]
) -> Parity:
    """Run both on `images` (N, C, H, W)."""
    with torch.inference_mode():
        wanted, got = net(images).float(), exported(images).float()  # (N, num_classes), or (N, 4 + C, M)
    same = (got.argmax(1) == wanted.argmax(1)).float().mean() if compared.ranked else torch.ones(())
    error = relative_error(compared.scores(got), compared.scores(wanted))
    return Parity(compared=compared, num_images=len(images), error=error, agreement=float(same), tolerance=tolerance)


def judged(
    parity: Parity, net: Predict, exported: Predict, loaders: Any, before: Mapping[str, float] | None = None
) -> Parity:
    """`parity` with the quality of both on val; `before` is that of the net where it is known, on train too perhaps."""
    quality = parity.compared.quality
    before = before or quality(net, loaders, False)
    return replace(parity, before=before, after=quality(exported, loaders, "train_map" in before))


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, as a share of the standard deviation of `wanted`."""
    return float((got - wanted).square().mean().sqrt() / wanted.std().clamp_min(1e-12))


def spread(batches: Batches, count: int) -> Tensor:
    """At most `count` images, evenly spread over batches that may be sorted by class."""
    kept = list(batches) if not isinstance(batches, Sized) else batches
    share = -(-count // max(len(kept), 1))
    parts = [images[torch.linspace(0, len(images) - 1, min(share, len(images))).long()] for images, _ in kept]
    return torch.cat(parts)[:count]
