"""Progress of a training: a bar with the time left on a terminal; elsewhere a line in ten epochs, or a minute.

The line is at most 80 columns wide. It names the stage of the run that it belongs to, and the time left is that of the
whole run, as if later epochs took as long as these.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from torch import Tensor

from solution.runtime import is_main_process

_EPOCHS, _SECONDS = 10, 60.0
"""Without a terminal a line is printed after so many epochs, and after so much time without one."""
_BAR, _FIGURES = 10, 22
"""Columns of the bar and of the figures next to it."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a run a training is: "stage 2 of 4", and how many epochs the later stages have."""

    name: str = ""
    epochs_after: int = 0


_NOWHERE = Place()
_place: contextvars.ContextVar[Place] = contextvars.ContextVar("place", default=_NOWHERE)


@contextlib.contextmanager
def placed(place: Place) -> Iterator[None]:
    """Inside, trainings show that they are at `place`."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


@contextlib.contextmanager
def busy(text: str) -> Iterator[None]:
    """Inside, a terminal shows that something goes on: "stage 2 of 4, judging"."""
    console = Console()
    name = _place.get().name
    with console.status(f"{name}, {text}" if name else text) if console.is_terminal else contextlib.nullcontext():
        yield


class Bar:
    """A context manager that counts batches as they are taken and shows each epoch's figures."""

    def __init__(self, epochs: int, steps: int, log: Callable[[str], None]) -> None:
        """`steps` batches an epoch; `log` takes the lines where there is no terminal."""
        self.epochs, self.steps, self.log = epochs, steps, log
        self.place = _place.get()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(_BAR),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[left]}"),
        )
        self.progress = Progress(*columns, transient=True)
        self.task = self.progress.add_task(
            self.place.name or "training", total=epochs * steps, figures="", left="", epoch=f"1/{epochs}"
        )
        self.live = self.progress.console.is_terminal and is_main_process()
        self.printed_at = time.monotonic()
        self.first: tuple[int, float] | None = None

    def __enter__(self) -> Bar:
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def watch(self, batches: Iterable[tuple[Tensor, ...]], epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of `epoch`, counted as they are taken; after the last one the net is judged."""
        if self.first is None:
            self.first = epoch * self.steps, time.monotonic()
        for step, batch in enumerate(batches, start=epoch * self.steps + 1):
            yield batch
            self._show(completed=step, epoch=f"{epoch + 1}/{self.epochs}", left=self._left(step))
        self._show(figures="judging on dev")

    def show(self, history: Sequence[Mapping[str, float]]) -> None:
        """Show the last epoch's figures."""
        last, done = history[-1], len(history)
        short = [f"{word} {last[name]:.3g}" for name, word in (("loss", "loss"), ("dev_f1", "F1")) if name in last]
        self._show(figures=" ".join(short)[:_FIGURES])
        shown = [f"{name} {last[name]:.4g}" for name in ("loss", "dev_f1", "images_per_s") if name in last]
        late = time.monotonic() - self.printed_at >= _SECONDS
        if not self.live and (late or done % _EPOCHS == 0 or done == self.epochs):
            left = f", {text}" if (text := self._left(done * self.steps)) and done < self.epochs else ""
            self.log(f"epoch {done}/{self.epochs}: {', '.join(shown)}{left}")
            self.printed_at = time.monotonic()

    def _show(self, **fields: object) -> None:
        self.progress.update(self.task, **cast(Any, fields))

    def _left(self, step: int) -> str:
        """Such as "1:02:03 left", of this training and of the later stages."""
        if self.first is None or step <= self.first[0]:
            return ""
        seconds = (time.monotonic() - self.first[1]) / (step - self.first[0])
        total = round(seconds * ((self.epochs + self.place.epochs_after) * self.steps - step))
        minutes, seconds_left = divmod(total, 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds_left:02d} left"
