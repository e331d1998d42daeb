"""What a student takes from a teacher: its logits, its feature maps, and how its images lie to each other.

Teacher tensors are constants: pass them without gradient. All losses are 0 when student and teacher agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError
from solution.losses.classification import check_targets

METHODS = ("kd", "dkd", "standardized")


def temperature_kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence of softened probabilities of logits (B, C), times T^2 (Hinton et al., 2015, arXiv:1503.02531).

    T^2 keeps the size of the gradients, whatever the temperature.
    """
    return temperature**2 * divergence(student / temperature, teacher / temperature)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL(teacher || student), in nats, of the distributions that the logits (B, C) stand for."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


def standardized_kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`temperature_kd` of logits brought to mean 0, deviation 1 in each image (Sun et al., 2024, arXiv:2403.01427).

    The student then need not match the size of the teacher's logits, only their relations.
    """
    classes = student.shape[1:]
    return temperature_kd(F.layer_norm(student, classes), F.layer_norm(teacher, classes), temperature)


def decoupled_kd(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The two halves of `temperature_kd` of logits (B, C) (Zhao et al., 2022, arXiv:2203.08679).

    The first compares target against all the rest, the second the others among themselves. In plain KD the second
    counts 1 - p_target of the teacher, so little where it is sure; DKD weighs both freely. Of probabilities as
    targets the largest is the target.
    """
    check_targets(targets, student)
    labels = targets.argmax(1) if targets.ndim == 2 else targets
    target_student, others_student = _decoupled(student / temperature, labels)
    target_teacher, others_teacher = _decoupled(teacher / temperature, labels)
    target, others = divergence(target_student, target_teacher), divergence(others_student, others_teacher)
    return temperature**2 * target, temperature**2 * others


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 2) of target against rest, and (B, C - 1) of the rest."""
    index = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(labels), -1)
    others = logits.gather(1, index + (index >= labels[:, None]))
    target = logits.gather(1, labels[:, None])
    return torch.cat((target, others.logsumexp(1, keepdim=True)), 1), others


def hint(student: Tensor, teacher: Tensor, projection: nn.Module | None = None) -> Tensor:
    """Mean squared difference of feature maps (B, F, H, W) (FitNets, Romero et al., 2015, arXiv:1412.6550).

    projection: takes the student's channels to the teacher's, usually a 1x1 convolution, trained along and thrown
    away. The finer map is pooled to the coarser. Raises `InputError` when the channels differ.
    """
    student, teacher = _same_size(projection(student) if projection else student, teacher)
    if student.shape != teacher.shape:
        raise InputError(
            f"a hint needs equal channels, got {student.shape[1]} and the teacher's {teacher.shape[1]}: pass "
            f"a projection such as nn.Conv2d({student.shape[1]}, {teacher.shape[1]}, 1)"
        )
    return F.mse_loss(student, teacher)


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    height, width = (min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return F.adaptive_avg_pool2d(student, (height, width)), F.adaptive_avg_pool2d(teacher, (height, width))


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of attention maps of features (B, F, H, W), in [0, 2] (Zagoruyko and Komodakis, 2017,
    arXiv:1612.03928). A map is the mean square over the channels, normalized, so that channels may differ.
    """
    student, teacher = _same_size(student, teacher)
    return (_attention(student) - _attention(teacher)).square().sum(1).mean()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(1).flatten(1), eps=1e-6)  # (B, H * W)


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the distances between all pairs of embeddings (B, F), each in units of its mean distance
    (Park et al., 2019, arXiv:1904.05068). Widths may differ.
    """
    return F.smooth_l1_loss(_distances(student), _distances(teacher))


def _distances(embeddings: Tensor) -> Tensor:
    distances = (embeddings[:, None] - embeddings).norm(dim=2)  # (B, B)
    num_pairs = max(1, len(embeddings) * (len(embeddings) - 1))
    return distances / (distances.sum() / num_pairs).clamp(min=1e-6)


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the cosines in all triangles of embeddings (B, F) (Park et al., 2019, arXiv:1904.05068).

    Takes memory for B^3 cosines and B^2 F differences.
    """
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


def _cosines(embeddings: Tensor) -> Tensor:
    sides = F.normalize(embeddings[:, None] - embeddings, dim=2, eps=1e-6)  # (B, B, F)
    return sides @ sides.mT  # (B, B, B)


def residual_target(student: Tensor, teacher: Tensor) -> Tensor:
    """What an assistant learns, by squared error, so that student + assistant is the teacher (Gao et al., 2020,
    arXiv:2002.09168). Logits or features of equal shape; constant, without gradient.
    """
    return (teacher - student).detach()


class NetOutput(NamedTuple):
    """What a net makes of a batch: logits (B, C), and feature maps (B, F, H, W) where a method needs them."""

    logits: Tensor
    features: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class DistillLoss:
    """Blend of distillation losses, added to the loss on the labels: ``DistillLoss(method="dkd", beta=4.0)``.

    method       how logits are matched: "kd", "dkd" or "standardized"
    logits       weight of that match
    hint         weight of the squared difference of feature maps
    attention    weight of the difference of attention maps
    distance     weight of the relational distances of pooled features
    angle        weight of the relational angles of pooled features
    temperature  softens the logits
    alpha, beta  DKD's weights of target against rest, and of the rest among themselves
    """

    method: str = "kd"
    logits: float = 1.0
    hint: float = 0.0
    attention: float = 0.0
    distance: float = 0.0
    angle: float = 0.0
    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        for name in ("logits", "hint", "attention", "distance", "angle", "alpha", "beta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if not self.logits and not self.needs_features:
            raise InputError("logits, hint, attention, distance and angle must not all be 0: nothing is distilled")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be above 0 and finite, got {self.temperature}")
        if self.method == "dkd" and not self.alpha + self.beta:
            raise InputError("alpha and beta must not both be 0, got 0 and 0: dkd would learn nothing")

    @property
    def needs_features(self) -> bool:
        """Whether student and teacher must show feature maps; otherwise logits suffice."""
        return any((self.hint, self.attention, self.distance, self.angle))

    def __call__(
        self, student: NetOutput, teacher: NetOutput, targets: Tensor, projection: nn.Module | None = None
    ) -> Tensor:
        """Scalar loss. targets: labels (B,) or probabilities (B, C), used by DKD; projection: as in `hint`.

        Raises `InputError` when the teacher knows other classes and when features are wanted and missing.
        """
        if student.logits.shape != teacher.logits.shape:
            raise InputError(
                f"the teacher's logits {tuple(teacher.logits.shape)} do not fit the student's "
                f"{tuple(student.logits.shape)}: both must know the same classes"
            )
        total = student.logits.new_zeros(())
        if self.logits:
            total = total + self.logits * self._on_logits(student.logits, teacher.logits, targets)
        if self.needs_features:
            total = total + self._on_features(student.features, teacher.features, projection)
        return total

    def _on_logits(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        if self.method == "dkd":
            target, others = decoupled_kd(student, teacher, targets, self.temperature)
            return self.alpha * target + self.beta * others
        matched = standardized_kd if self.method == "standardized" else temperature_kd
        return matched(student, teacher, self.temperature)

    def _on_features(self, student: Tensor | None, teacher: Tensor | None, projection: nn.Module | None) -> Tensor:
        if student is None or teacher is None:
            raise InputError(
                "hint, attention, distance and angle need feature maps of both nets: pass NetOutput(features=)"
            )
        total = student.new_zeros(())
        if self.hint:
            total = total + self.hint * hint(student, teacher, projection)
        if self.attention:
            total = total + self.attention * attention_transfer(student, teacher)
        pooled = student.mean((2, 3)), teacher.mean((2, 3))  # (B, F)
        if self.distance:
            total = total + self.distance * relational_distance(*pooled)
        if self.angle:
            total = total + self.angle * relational_angle(*pooled)
        return total
