"""`Assist`, the step: a small second net learns what the student misses, and the two are summed.

Residual knowledge distillation (Gao et al., 2020, arXiv:2002.09168). The sum costs both nets; to fold it into one,
let it teach: ``Distill(teachers=("runs/x/assist/model.safetensors",))``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import InputError, Plan, StepContext
from solution.losses.distillation import residual_target
from solution.models.shufflenet import ShuffleNet
from solution.runtime import seed_everything
from solution.train.distillation import Distill, DistillObjective


class Sum(nn.Module):
    """The sum of a finished net's logits and an assistant's. Training fits the assistant alone."""

    def __init__(self, student: nn.Module, assistant: nn.Module) -> None:
        super().__init__()
        self.student, self.assistant = student, assistant

    def train(self, mode: bool = True) -> Sum:
        """The assistant in training mode; the student's norms keep their statistics."""
        super().train(mode)
        self.student.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes)."""
        return self.student(x) + self.assistant(x)


@dataclass(frozen=True, kw_only=True)
class AssistPlan(Plan):
    """An assistant of the settings `assistant` beside the net, for `num_classes` classes."""

    kind: ClassVar[str] = "assist"
    assistant: dict[str, Any]
    num_classes: int

    def cut(self, model: nn.Module) -> nn.Module:
        """The `Sum` of `model` and a fresh assistant that says nothing yet."""
        assistant: Any = ShuffleNet(**self.assistant).build(self.num_classes)
        nn.init.zeros_(assistant.output.weight)
        model.requires_grad_(False)
        return Sum(model, assistant)

    def __str__(self) -> str:
        return f"an assistant beside the net, {self.num_classes} classes: {ShuffleNet(**self.assistant)}"


@dataclass(frozen=True, kw_only=True)
class Assist(Distill):
    """Train `assistant` so that student + assistant is the teacher: labels, and squared error of the residual.

    assistant  settings of the second net
    share      weight of the squared error
    """

    assistant: ShuffleNet = field(default_factory=lambda: ShuffleNet(units=(1, 1, 1)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill_loss.needs_features or self.margin.on or self.auxiliary:
            raise InputError("an assistant learns from logits: leave distill_loss, margin and auxiliary as they are")

    def objective(self, net: nn.Module, context: StepContext) -> nn.Module:
        """The assistant's lesson."""
        return Residual(net, self, context)

    def plan(self, model: nn.Module, context: StepContext) -> AssistPlan:
        """The assistant beside `model`."""
        settings = dataclasses.asdict(self.assistant)
        return AssistPlan(assistant=settings, num_classes=model.eval()(context.example).shape[1])

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The `Sum` with an assistant that has learned nothing."""
        return self.plan(model, context).apply(model)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The `Sum` of `model`, unchanged, and a trained assistant."""
        seed_everything(context.seed)
        return super().run(self.plan(model, context).apply(model), context)


class Residual(DistillObjective):
    """The part of the teachers' logits that the student misses."""

    settings: Assist
    net: Sum

    def forward(self, images: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), targets, and the teachers' stored logits (B, num_classes), if any."""
        student, assistant = self.net.student(images).float(), self.net.assistant(images).float()
        missed = residual_target(student, self.said(images, teacher_logits).logits)
        share = self.settings.share
        matched = F.mse_loss(assistant, missed)
        return (1 - share) * self.settings.loss(student + assistant, targets, self.context.counts) + share * matched
