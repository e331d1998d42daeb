"""The one flat loop that every training goes through, on Hugging Face Accelerate: CPU, GPU, several processes."""

from __future__ import annotations

import math
import time

from torch import nn

from solution.contracts import InputError, StepContext
from solution.runtime import seed_everything
from solution.train.progress import Bar
from solution.train.state import save_state
from solution.train.step import Train
from solution.train.training import Training


def fit(model: nn.Module, settings: Train, context: StepContext) -> nn.Module:
    """A trained copy of `model`, on the CPU, in evaluation mode.

    After every epoch the whole state is written to `context.folder`; with `context.resume` the training goes on from
    there and ends with the very weights that it would have had without the stop.
    """
    seed_everything(context.seed)
    run = Training(model, settings, context)
    history = run.restore()
    with Bar(settings.epochs, run.steps, context.log) as bar:
        for epoch in range(len(history), settings.epochs):
            if hasattr(run.batches, "set_epoch"):
                run.batches.set_epoch(epoch)
            start = time.perf_counter()
            figures = run.epoch(epoch, bar.watch(run.batches, epoch))
            if not math.isfinite(figures["loss"]):
                raise InputError(_diverged(epoch, settings))
            figures |= run.judge()
            history.append({"epoch": epoch + 1, **figures, "seconds": round(time.perf_counter() - start, 2)})
            if context.folder and run.accelerator.is_main_process:
                save_state(context.folder, run.state(), history)
            bar.tell(history)
    return run.best_model()


def _diverged(epoch: int, settings: Train) -> str:
    return (
        f"the loss is no longer a number in epoch {epoch + 1}: training diverged. "
        f"Lower lr (now {settings.lr}), lengthen warmup_epochs (now {settings.warmup_epochs}), "
        "or use precision fp32; nothing was overwritten after the last good epoch"
    )
