"""Progress of a training: a bar with rate and time left on a terminal; elsewhere a line in ten epochs, or a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

_EPOCHS, _SECONDS = 10, 60.0
"""Without a terminal a line is said after so many epochs, and after so much time without one."""


class Bar:
    """A context manager that counts batches as they are taken and shows each epoch's figures."""

    def __init__(self, epochs: int, steps: int, log: Callable[[str], None]) -> None:
        """`steps` batches an epoch; `say` takes the lines where there is no terminal."""
        self.epochs, self.steps, self.log = epochs, steps, log
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self.progress = Progress(*columns, transient=True)
        self.task = self.progress.add_task("training", total=epochs * steps, figures="")
        self.live = self.progress.console.is_terminal
        self.said_at = time.monotonic()

    def __enter__(self) -> Bar:
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def watch(self, batches: Iterable[tuple[Tensor, ...]], epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of `epoch`, counted as they are taken."""
        for step, batch in enumerate(batches, start=epoch * self.steps + 1):
            yield batch
            self.progress.update(self.task, completed=step)

    def tell(self, history: list[dict[str, float]]) -> None:
        """Show the last epoch's figures."""
        last, done = history[-1], len(history)
        shown = [f"{name} {last[name]:.4g}" for name in ("loss", "dev_f1", "images_per_s") if name in last]
        figures = f"epoch {done}/{self.epochs}: {', '.join(shown)}"
        self.progress.update(self.task, figures=figures)
        late = time.monotonic() - self.said_at >= _SECONDS
        if not self.live and (late or done % _EPOCHS == 0 or done == self.epochs):
            self.log(figures)
            self.said_at = time.monotonic()
