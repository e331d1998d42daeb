"""The limit of effort, and the journal of what was decided: after a stop nothing is decided twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from solution.contracts import InputError
from solution.runtime import write_text
from solution.train.settings import resized

_ELAPSED = "seconds so far"


class OutOfTimeError(Exception):
    """The time for trainings is over in the middle of one."""


class Journal:
    """{what was decided or measured: its value} in a file that is written whole at each new entry."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()
        self.entries: dict[str, Any] = {}
        if path.is_file():
            try:
                self.entries = dict(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise InputError(f"{path} is damaged ({error}); begin anew without --resume") from error
        self.before = float(self.entries.get(_ELAPSED, 0.0))

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value noted under `key`; without one, what `compute` returns, as JSON gives it back."""
        if key not in self.entries:
            self.note(key, compute())
        return self.entries[key]

    def note(self, key: str, value: Any) -> None:
        """Write down `value`."""
        self.entries |= {key: json.loads(json.dumps(value)), _ELAPSED: round(self.seconds(), 2)}
        write_text(self.path, json.dumps(self.entries, indent=1) + "\n")

    def seconds(self) -> float:
        """Wall time so far, with that of the commands that were stopped as far as it was noted."""
        return self.before + time.monotonic() - self.start


class Effort:
    """How much may still be spent: seconds of a limit, or training steps of the whole net where there is none.

    reserve  what the end needs: exports, measurements, the verdict
    """

    def __init__(self, journal: Journal, hours: float | None, steps: float) -> None:
        self.journal, self.timed = journal, hours is not None
        self.total = 3600 * hours if hours is not None else steps
        self.reserve = self.spent = 0.0

    def left(self) -> float:
        """For trainings."""
        return self.total - self.reserve - (self.journal.seconds() if self.timed else self.spent)

    def has(self, seconds: float) -> bool:
        """Whether so much of the limit is left at the end, the reserve included."""
        return not self.timed or self.total - self.journal.seconds() > seconds

    def charge(self, steps: int, share: float) -> None:
        """Count `steps` training steps of a net that costs `share` of the whole one; a clock counts by itself."""
        self.spent += 0 if self.timed else steps * share

    def check(self) -> None:
        """Raise `OutOfTimeError` when the time for trainings is over."""
        if self.timed and self.left() < 0:
            raise OutOfTimeError

    def __str__(self) -> str:
        """Such as "12:31 of 30:00 min, 17:29 left"."""
        seconds = self.journal.seconds()
        if self.timed:
            return f"{_clock(seconds)} of {_clock(self.total)} min, {_clock(max(self.total - seconds, 0))} left"
        share = min(self.spent / self.total, 1.0)
        left = f", about {_clock(seconds * (1 - share) / share)} left" if share > 0.05 else ""
        return f"{share:.0%} of the trainings, {_clock(seconds)} min{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


@dataclass(kw_only=True, eq=False)
class Portion:
    """Training batches of one round: `steps` an epoch, each epoch the first ones of an order of its own.

    first    number of the first epoch, so that rounds see other orders and views
    size     side in pixels to which images are brought for the student; 0 leaves them
    teacher  the net whose outputs are computed for each batch; None where they come stored with it
    own      targets are of a task of one's own: they come behind the labels, as (targets, outputs)
    """

    base: Any
    steps: int
    first: int
    effort: Effort
    size: int = 0
    teacher: Callable[[Tensor], Any] | None = None
    device: str = "cpu"
    own: bool = False

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        """Which epoch of the round comes next."""
        if hasattr(self.base, "set_epoch"):
            self.base.set_epoch(self.first + epoch)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        done = 0
        while done < self.steps:
            before = done
            for batch in self.base:
                self.effort.check()
                yield self._made(*batch)
                done += 1
                if done == self.steps:
                    return
            if done == before:
                raise InputError("the training batches can be read once only: give a list or a DataLoader")

    def _made(self, images: Tensor, labels: Any, logits: Any = None) -> tuple[Any, ...]:
        images, labels = images.to(self.device), moved(labels, self.device)
        if self.teacher is not None:
            logits = self.teacher(images)
        if self.size:
            images = resized(images, self.size)
        if self.own:  # whatever the targets are, no one but the user's loss reads them
            return images, torch.zeros(len(images), dtype=torch.long), (labels, moved(logits, self.device))
        return (images, labels) if logits is None else (images, labels, moved(logits, self.device))


def moved(parts: Any, device: str) -> Any:
    """Tensors in any nesting, on `device`."""
    return tree_map(lambda part: part.to(device) if isinstance(part, Tensor) else part, parts)


def num_batches(batches: Any) -> int:
    """How many batches an epoch has."""
    return len(batches) if hasattr(batches, "__len__") else sum(1 for _ in batches)


def on_device(net: nn.Module, device: str) -> nn.Module:
    """`net` for asking alone: in evaluation mode, on `device`."""
    return net.to(device).eval().requires_grad_(False)
