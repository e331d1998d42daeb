"""One round of training: a cut net learns what the net as it came answers, for so many steps, resumable."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from solution import checkpoint, tasks
from solution.contracts import InputError, copied, plans_of, spec_of
from solution.data.views import with_teacher_logits
from solution.losses.distillation import DistillLoss
from solution.run_folder import MODEL, STATE
from solution.runtime import seed_everything
from solution.shrink.effort import Effort, OutOfTimeError, Portion, num_batches, on_device
from solution.shrink.subject import Subject
from solution.train.distillation import Distill, DistillObjective, store_teacher_logits
from solution.train.progress import Place, placed
from solution.train.recover import Recover
from solution.train.resume import load_state
from solution.train.trainer import Objective, fit

_TEMPERATURE, _SHARE = 2.0, 0.9
_EPOCHS = 4
"""At least so many parts a round has: after each the state is written, so a stop costs a fourth at most."""
_TIMED = 3


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A net on its way, and the side in pixels of the pictures that it sees."""

    net: nn.Module
    size: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """How long a net learns, and how fast.

    first  number of its first epoch among those of all rounds
    """

    steps: int
    first: int = 0
    lr: float = 1e-3

    def epochs(self, batches: int) -> tuple[int, int]:
        """Its epochs, and the steps of each, for training data of so many batches."""
        epochs = max(-(-self.steps // batches), min(_EPOCHS, self.steps))
        return epochs, max(round(self.steps / epochs), 1)


class Teaching:
    """Training batches with the logits of the net as it came: stored where views can be, else computed each time."""

    def __init__(self, subject: Subject, views: int, log: Callable[[str], None]) -> None:
        self.subject, self.log = subject, log
        self.teacher: Callable[[Tensor], Any] | None = None
        self.base: Any = subject.given.train
        if self.base is None:
            raise InputError("a training needs pictures: give train batches, or --data PATH in the shell")
        if subject.views is not None and views:
            loader: Any = subject.views(views)
            views = loader.batch_sampler.num_views
            logits = store_teacher_logits(copied(subject.net), loader.dataset, views, log)
            self.base = with_teacher_logits(loader, logits, log)
        else:
            self.teacher = _asked(on_device(copied(subject.net), subject.device))
        self.batches = num_batches(self.base)

    def run(self, cut: Cut, plan: Round, folder: Path, effort: Effort) -> Cut:
        """`cut`, trained; a stopped round goes on from `folder`. When the time is over, as it was after the last epoch;
        `OutOfTimeError` when there is none.
        """
        subject = self.subject
        epochs, steps = plan.epochs(self.batches)
        settings = Distill(
            epochs=epochs,
            lr=plan.lr,
            optimizer="adamw",
            weight_decay=0.01,
            warmup_epochs=max(0.1 * epochs, 0.01),
            keep="last",
            teachers=("the net as it came",),
            distill_loss=DistillLoss(temperature=_TEMPERATURE),
            share=_SHARE if subject.labeled else 1.0,
        )
        own = subject.loss is not None or subject.task is not tasks.CLASSIFICATION
        train: Any = Portion(base=self.base, steps=steps, first=plan.first, effort=effort, size=self._side(cut),
                             teacher=self.teacher, device=subject.device, own=own)  # fmt: skip
        context = dataclasses.replace(subject.context(cut.size, self.log, folder), train=train, dev=None)
        seed_everything(subject.seed)  # whatever ran before

        def objective(student: nn.Module, given: Any) -> Objective:
            return Match(student, subject.loss, settings) if own else DistillObjective(student, settings, given)

        try:
            with placed(Place(name=folder.name)):
                return Cut(net=fit(cut.net, settings, context, objective), size=cut.size)
        except OutOfTimeError:
            state = load_state(folder, repr(settings))
            if state is None:
                raise
            net = copied(cut.net).cpu()
            net.load_state_dict(state["best"])
            return Cut(net=net.eval(), size=cut.size)

    def _side(self, cut: Cut) -> int:
        """Side to which the student's pictures are brought; 0 where they have it."""
        return 0 if cut.size == self.subject.header.size else cut.size

    def seconds_per_step(self, cut: Cut, effort: Effort) -> float:
        """Of a training step, forward and back, as it is measured now: the median of a few."""
        student = copied(cut.net).to(self.subject.device).train()
        portion = Portion(base=self.base, steps=_TIMED + 1, first=0, effort=effort, size=self._side(cut),
                          teacher=self.teacher, device=self.subject.device)  # fmt: skip
        times, start = [], time.perf_counter()
        for images, *_ in portion:
            _sum(student(images)).backward()
            student.zero_grad()
            times.append(time.perf_counter() - start)
            start = time.perf_counter()
        return statistics.median(times[1:])


class Match(Objective):
    """A net, the loss of its user, and its distance from the outputs of the net as it came."""

    def __init__(self, net: nn.Module, loss: Callable[[Any, Any], Tensor] | None, settings: Distill) -> None:
        super().__init__()
        self.net, self.loss, self.settings = net, loss or F.cross_entropy, settings

    def forward(self, images: Tensor, _labels: Tensor, teacher_logits: tuple[Any, Any]) -> Tensor:
        """Scalar loss; outputs are matched as `Recover` matches them, in any nesting."""
        outputs, share, (targets, theirs) = self.net(images), self.settings.share, teacher_logits
        matched = Recover(temperature=self.settings.distill_loss.temperature).match(outputs, theirs)
        return matched if share == 1 else (1 - share) * self.loss(outputs, targets) + share * matched


def _asked(net: nn.Module) -> Callable[[Tensor], Any]:
    def outputs(images: Tensor) -> Any:
        with torch.no_grad():
            return net(images)

    return outputs


def _sum(outputs: Any) -> Tensor:
    parts = [part for part in tree_leaves(outputs) if isinstance(part, Tensor) and part.is_floating_point()]
    return torch.stack([part.float().sum() for part in parts]).sum()


def kept(folder: Path, subject: Subject) -> Cut | None:
    """What a finished round left in `folder`; None when it is not finished."""
    path = folder / MODEL
    if not path.is_file():
        return None
    net, header = checkpoint.load(path, None if spec_of(subject.net) else subject.net)
    return Cut(net=net, size=header.size)


def keep(folder: Path, cut: Cut, subject: Subject) -> None:
    """Write `cut` where `kept` finds it, and drop the state of its training."""
    checkpoint.save(folder / MODEL, cut.net, header_for(cut, subject))
    for path in folder.iterdir():
        if path.name == STATE:
            path.unlink()


def header_for(cut: Cut, subject: Subject, **fields: Any) -> checkpoint.Header:
    """What the file of `cut` says."""
    return dataclasses.replace(subject.header, plans=plans_of(cut.net), size=cut.size, **fields)
