"""Angular margins: classes pushed apart while training, at no cost afterwards.

``net.output = MarginHead(net.output, Margin())``, train on ``head.with_margin(net(images), targets)``, then
``net.output = head.fold()``: a plain classifier of the old shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError
from solution.losses.classification import as_probabilities

KINDS = ("arcface", "cosface", "none")


def arcface(cosines: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Cosines (B, C) whose target's angle is widened by `margin` radians (Deng et al., 2019, arXiv:1801.07698).

    Past half a turn, where the cosine would rise again, it goes on falling along a line. Probabilities (B, C) as
    targets widen each class in proportion.
    """
    m = margin * as_probabilities(targets, cosines)
    sines = (1 - cosines.square()).clamp(min=1e-6).sqrt()
    return torch.where(cosines > -m.cos(), cosines * m.cos() - sines * m.sin(), cosines - m * m.sin())


def cosface(cosines: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Cosines (B, C) whose target is lowered by `margin` (Wang et al., 2018, arXiv:1801.09414).

    Probabilities (B, C) as targets lower each class in proportion.
    """
    return cosines - margin * as_probabilities(targets, cosines)


_MOST_CENTERS = 64
"""Of a class: more looks than any class has, and each is a row of weights."""


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Settings of a `MarginHead`.

    kind     "arcface": the margin is an angle in radians; "cosface": a difference of cosines; "none": no such head
    margin   0 leaves a cosine classifier
    scale    logits are scale * cosine; nine classes need about 6 to reach a probability of 0.99 (CosFace, section 3.3)
    centers  sub-centers a class, of which the nearest counts (Deng et al., 2020, ECCV), for classes of several looks
    """

    kind: str = "arcface"
    margin: float = 0.3
    scale: float = 16.0
    centers: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 0 <= self.margin < math.pi / 2:
            raise InputError(f"margin must lie in [0, pi / 2), got {self.margin}")
        if not 0 < self.scale < math.inf:
            raise InputError(f"scale must be above 0 and finite, got {self.scale}")
        if not 1 <= self.centers <= _MOST_CENTERS:
            raise InputError(f"centers must be 1 to {_MOST_CENTERS}, got {self.centers}")

    @property
    def on(self) -> bool:
        """Whether the classifier is replaced while training."""
        return self.kind != "none"


class MarginHead(nn.Module):
    """A cosine classifier with a margin, in place of an `nn.Linear` or a 1x1 `nn.Conv2d`, whose weights it takes over.

    An angle near 0 or pi hardly shrinks when it is widened, so a small net would make all angles so and separate
    nothing. Two things prevent that: features have zero mean and unit variance, as the authors' own embeddings, and
    what the rows of all classes share is taken off. Rows at right angles to the features' mean let it fold away without
    a bias; one that is there folds to 0. Sub-centers beyond the first start scattered around the classifier's rows.
    """

    def __init__(self, classifier: nn.Module, settings: Margin) -> None:
        """`InputError` when `classifier` is anything but a linear map of the features."""
        super().__init__()
        self.settings, self.plain = settings, _maker(classifier)
        weight = classifier.weight
        assert isinstance(weight, Tensor)  # `_maker` refused all else
        rows = weight.detach().flatten(1)[:, None]  # (C, 1, F)
        others = rows + rows.std() * torch.randn_like(rows.expand(-1, settings.centers - 1, -1))
        self.weight = nn.Parameter(torch.cat((rows, others), 1))  # (C, centers, F)
        self.norm = nn.BatchNorm1d(rows.shape[2], affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) or (B, F, 1, 1) to scale * cosine (B, C), of the nearest center of each class."""
        return self.settings.scale * self._cosines(features).amax(2)

    def _cosines(self, features: Tensor) -> Tensor:
        cosines = F.normalize(self._normed(features.flatten(1)), eps=1e-6) @ self._directions().flatten(0, 1).T
        return cosines.unflatten(1, self.weight.shape[:2])  # (B, C, centers)

    def _normed(self, features: Tensor) -> Tensor:
        norm, alone = self.norm, len(features) == 1  # one image has no variance: it takes that of those before
        return F.batch_norm(features, norm.running_mean, norm.running_var, training=norm.training and not alone)

    def _directions(self) -> Tensor:
        """(C, centers, F) of length 1, around no common direction, at right angles to the mean of the features."""
        mean = F.normalize(self._statistic("running_mean") / self._std(), dim=0)
        rows = self.weight - self.weight.mean((0, 1))
        return F.normalize(rows - (rows @ mean)[..., None] * mean, dim=2, eps=1e-6)

    def _std(self) -> Tensor:
        return (self._statistic("running_var") + self.norm.eps).sqrt()

    def _statistic(self, name: str) -> Tensor:
        return self.norm.get_buffer(name)

    def with_margin(self, logits: Tensor, targets: Tensor) -> Tensor:
        """This head's logits (B, C) made harder for their targets, for the training loss alone."""
        harder = arcface if self.settings.kind == "arcface" else cosface
        scale = self.settings.scale
        return scale * harder(logits / scale, targets, self.settings.margin)

    @torch.no_grad()
    def dominant(self, features: Tensor, labels: Tensor) -> Tensor:
        """The sub-center (C,) of each class nearest to most of its training images, as features (N, F) and labels (N,).

        A class without images keeps its first.
        """
        nearest = self._cosines(features).argmax(2).gather(1, labels[:, None])  # (N, 1)
        wins = torch.zeros(self.weight.shape[:2], device=labels.device)  # (C, centers)
        ones = torch.ones(len(labels), device=labels.device)
        return wins.index_put_((labels, nearest[:, 0]), ones, accumulate=True).argmax(1)

    @torch.no_grad()
    def fold(self, dominant: Tensor | None = None) -> nn.Module:
        """A plain classifier of the old kind and shape, so of the old MACs.

        Its logits are length * cosine of the (normed) features: for every image this head's logits, in evaluation mode,
        times length / scale, so the order of the classes is the same and only the confidence differs. The nearest of
        several sub-centers is no linear map: as in the paper the `dominant` one of each class (C,) is kept, and the
        order is that of this head with the others removed. Raises `InputError` when there are several and none is
        chosen.
        """
        index = torch.arange(len(self.weight), device=self.weight.device)
        if dominant is None and self.settings.centers > 1:
            raise InputError(
                f"one of {self.settings.centers} centers a class must be chosen: "
                "pass fold(head.dominant(features, labels))"
            )
        kept = torch.zeros_like(index) if dominant is None else dominant.to(index)
        plain, rows = self.plain().to(self.weight), self._directions()[index, kept] / self._std()
        plain.weight.copy_(rows.view_as(plain.weight))
        if plain.bias is not None:
            plain.bias.zero_()
        return plain


def _maker(classifier: nn.Module) -> Callable[[], nn.Linear | nn.Conv2d]:
    """What builds a classifier of the same kind, shape and keys."""
    has_bias = getattr(classifier, "bias", None) is not None
    if isinstance(classifier, nn.Linear):
        return functools.partial(nn.Linear, classifier.in_features, classifier.out_features, bias=has_bias)
    if isinstance(classifier, nn.Conv2d) and classifier.kernel_size == (1, 1) and classifier.groups == 1:
        return functools.partial(nn.Conv2d, classifier.in_channels, classifier.out_channels, 1, bias=has_bias)
    raise InputError(f"a margin head replaces an nn.Linear or an ungrouped 1x1 nn.Conv2d, got {classifier}")
