"""The one flat loop that every training goes through, on Hugging Face Accelerate: CPU, GPU, several processes."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from solution.batches import TidyBatches
from solution.contracts import InputError, StepContext
from solution.evaluate.classify import NoNumbersError, classify, predictor
from solution.graph import as_judged, run
from solution.models.outputs import classifier_path
from solution.runtime import imitates_bf16, is_main_process, seed_everything
from solution.train.processes import OverTheWholeBatch, Processes, joined
from solution.train.progress import Bar
from solution.train.resume import load_state, save_state
from solution.train.settings import TrainSettings, ema_decay, resized, side_at, warmup_cosine

_IMITATED = (
    "this processor has no bf16 instructions and imitates them: precision fp32 (--set every.precision=fp32) is many "
    "times as fast here"
)


def fit(
    model: nn.Module,
    settings: TrainSettings,
    context: StepContext,
    objective: Callable[[nn.Module, StepContext], Objective],
) -> nn.Module:
    """A trained copy of `model`, on the CPU, in evaluation mode.

    After every epoch the whole state is written to `context.folder`; with `context.resume` the training goes on from
    there and ends with the very weights that it would have had without the stop.

    objective  makes of a copy of the net its `Objective`
    """
    seed_everything(context.seed)
    if not is_main_process():
        context = dataclasses.replace(context, log=lambda _: None)
    run = Trainer(model, settings, context, objective)
    history = run.restore()
    with Bar(settings.epochs, run.steps, context.log) as bar:
        for epoch in range(len(history), settings.epochs):
            if hasattr(run.batches, "set_epoch"):
                run.batches.set_epoch(epoch)
            start = time.perf_counter()
            figures = run.epoch(epoch, bar.watch(run.batches, epoch))
            try:
                figures |= run.judge()
            except NoNumbersError as error:
                raise InputError(run.diverged_by(epoch)) from error
            history.append({"epoch": epoch + 1, **figures, "seconds": round(time.perf_counter() - start, 2)})
            if context.folder and is_main_process():
                save_state(context.folder, run.state(), history)
            bar.show(history)
    return run.best_model()


class Trainer:
    """What a training carries from step to step: objective, optimizer, running average, the best epoch so far."""

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        context: StepContext,
        objective: Callable[[nn.Module, StepContext], Objective],
    ) -> None:
        self.settings, self.context, self.original = settings, context, model
        self.chance = torch.Generator()
        self.accelerator = _accelerator(context.device, settings.precision)
        on_cpu_in_bf16 = settings.precision == "bf16" and context.device == "cpu"
        if on_cpu_in_bf16 and imitates_bf16():
            context.log(_IMITATED)
        self.modes: list[TorchFunctionMode] = [Float32Depthwise()] if on_cpu_in_bf16 else []
        train: Any = context.need("train", "training")
        self.processes = Processes(self.accelerator)
        if self.processes.several:
            self.modes.append(OverTheWholeBatch(self.processes))
            self.batches: Any = self.processes.batches(train)
        else:
            self.batches = self.accelerator.prepare(train) if isinstance(train, DataLoader) else train
        if isinstance(train, TidyBatches) and isinstance(train.loader, DataLoader) and not self.processes.several:
            self.batches = TidyBatches(self.accelerator.prepare(train.loader), train.num_classes, train.log)
        self.steps: int = len(self.batches)
        if not self.steps:
            raise InputError("the training split makes no batch: it is empty")
        if settings.first_size:
            _check_size(model, settings.first_size, context.example)
        # The layout in which convolutions of small nets run fastest, on the CPU too.
        net = copy.deepcopy(model).to(memory_format=torch.channels_last)
        if settings.fitted == "classifier":
            net.requires_grad_(False).get_submodule(classifier_path(net)).requires_grad_(True)
        # `processes` averages the gradients itself: without the library's wrapper for several processes.
        self.objective = self.accelerator.prepare_model(objective(net, context), evaluation_mode=self.processes.several)
        if self.processes.several:
            self.processes.align(self.objective)
            self.objective.whole = self.processes.whole
        self.optimizer = self.accelerator.prepare(_optimizer(self.objective, settings))
        self.average = _average(self.net, settings.ema_decay) if settings.ema_decay else None
        self.best_f1 = -1.0
        self.best: dict[str, Tensor] = {}

    @property
    def net(self) -> nn.Module:
        """The bare net, without its objective and wrappers for several processes."""
        return self.accelerator.unwrap_model(self.objective).net

    @property
    def shown(self) -> nn.Module:
        """What is judged and kept: the running average if there is one."""
        return self.average.module if self.average else self.net

    def epoch(self, epoch: int, batches: Iterable[tuple[Tensor, ...]]) -> dict[str, float]:
        """One pass. Returns mean loss, images per second and the share of time spent waiting for data."""
        self.objective.train()
        if self.settings.frozen_norms:
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        self.chance.manual_seed(self.context.seed * 100_003 + epoch)
        total, images_seen, waited = torch.zeros((), device=self.processes.device), 0, 0.0
        start = requested = time.perf_counter()
        largest = 0
        for step, batch in enumerate(batches, start=epoch * self.steps):
            waited += time.perf_counter() - requested
            largest = max(largest, len(batch[0]))
            if len(batch[0]) == 1 < largest and not self.processes.several:
                requested = time.perf_counter()  # a batch norm learns nothing from one picture, and may refuse it
                continue
            images = self.processes.total if self.processes.several else len(batch[0])
            total += self.update(step, *batch) * images
            images_seen += images
            requested = time.perf_counter()
        if not self._is_finite():
            raise InputError(self._diverged(step, batch[0]))
        seconds = requested - start
        return {
            "loss": float(total) / images_seen,
            "images_per_s": round(images_seen / seconds, 1),
            "data_wait": round(waited / seconds, 4),
        }

    def update(self, step: int, images: Tensor, labels: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """One optimizer step on images (B, C, H, W), labels (B,) and stored teacher logits. Returns the scalar loss.

        Of several processes each has some of the images, and all labels and logits.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self.lr_factor(step)
        seen, targets = self.mixed(self.sized(step, images), labels)
        try:
            with contextlib.ExitStack() as stack:
                for mode in (self.accelerator.autocast(), *self.modes):
                    stack.enter_context(mode)
                loss = self.objective(seen, targets, teacher_logits)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "a batch norm cannot learn from a batch of one picture: batch_size of at least 2, or frozen_norms=True"
            ) from error
        if not torch.isfinite(loss):
            raise InputError(self._diverged(step, images))
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.processes.average_gradients(self.objective)
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.net)
        return loss.detach()

    def _is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(torch.isfinite(weight).all()) for weight in self.net.parameters())

    def _diverged(self, step: int, images: Tensor) -> str:
        """Where the loss stopped being a number, and why, as far as that can be known."""
        epoch, batch = divmod(step, self.steps)
        lr = self.settings.lr * self.lr_factor(step)
        where = f"the loss is no longer a number in batch {batch + 1} of epoch {epoch + 1}, at learning rate {lr:.3g}: "
        if not torch.isfinite(images).all():
            return where + "the batch itself holds values that are no numbers; check the pictures and data.std"
        if not step and not self._is_finite():
            return where + "the net came with weights that are no numbers; start from another file"
        if not step:
            return where + "before the first step, so the net's outputs are too large for its loss or its precision"
        return f"{where}{self._too_fast()}"

    def diverged_by(self, epoch: int) -> str:
        """The message about an epoch whose losses were numbers, after which the net's answers on dev are none."""
        lr = self.settings.lr * max(map(self.lr_factor, range(epoch * self.steps, (epoch + 1) * self.steps)))
        return f"answers are no numbers after epoch {epoch + 1}, at learning rate {lr:.3g}: {self._too_fast()}"

    def _too_fast(self) -> str:
        settings = self.settings
        way_out = f"lower lr (now {settings.lr}) or lengthen warmup_epochs (now {settings.warmup_epochs})"
        if self.accelerator.mixed_precision == "fp16":
            way_out += ", or use precision fp32: fp16 knows no numbers above 65,504"
        return f"the learning rate is too high; {way_out}. The best epoch so far is kept"

    def lr_factor(self, step: int) -> float:
        """Factor on the peak learning rate at optimizer step `step`."""
        total = self.settings.epochs * self.steps
        return warmup_cosine(step, total, round(self.settings.warmup_epochs * self.steps))

    def sized(self, step: int, images: Tensor) -> Tensor:
        """Images (B, C, H, W) at the side that they have at optimizer step `step`."""
        epoch, settings = step // self.steps, self.settings
        return resized(images, side_at(epoch, settings.epochs, settings.first_size, images.shape[2]))

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch after mixup and cutmix; targets are then probabilities (B, num_classes)."""
        if not self.settings.mixing.on:
            return images, labels
        mixed, targets = self.settings.mixing(
            self.processes.whole(images), labels, len(self.context.classes), self.chance
        )
        return (mixed[self.processes.rows] if self.processes.several else mixed), targets

    def judge(self) -> dict[str, float]:
        """Macro F1 on the dev split, if there is one; the best epoch so far is kept, or the last."""
        if self.context.dev is None:
            self.best = _copied(self.shown.state_dict())
            return {}
        predict = self.processes.judging(predictor(self.shown, str(self.processes.device)))
        judged = classify(predict, self.context.dev)
        if self.settings.keep == "last" or judged.f1 >= self.best_f1:
            self.best_f1, self.best = judged.f1, _copied(self.shown.state_dict())
        return {"dev_f1": judged.f1, "dev_accuracy": judged.accuracy}

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as tensors and numbers."""
        return {
            "settings": repr(self.settings),
            "objective": self.accelerator.unwrap_model(self.objective).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "best": self.best or None,
            "best_f1": self.best_f1,
            "random": torch.get_rng_state(),
        }

    def restore(self) -> list[dict[str, float]]:
        """Take up the state in `context.folder` if `resume` is set; returns the history so far."""
        context = self.context
        state = load_state(context.folder, repr(self.settings)) if context.resume and context.folder else None
        if state is None:
            return []
        self.accelerator.unwrap_model(self.objective).load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        _lay_out_like_parameters(self.optimizer)
        if self.average:
            self.average.load_state_dict(state["average"])
        self.best, self.best_f1 = state["best"] or {}, state["best_f1"]
        torch.set_rng_state(state["random"])
        context.log(f"going on after epoch {len(state['history'])} of {self.settings.epochs}")
        return state["history"]

    def best_model(self) -> nn.Module:
        """The kept weights in a copy of the model that was handed in."""
        net = copy.deepcopy(self.net).cpu()
        net.load_state_dict(self.best)
        model = copy.deepcopy(self.original).cpu()
        model.load_state_dict(self.accelerator.unwrap_model(self.objective).finished(net).state_dict())
        return model.eval()


def same(rows: Tensor) -> Tensor:
    """`rows` themselves."""
    return rows


class Objective(nn.Module):
    """What a training makes small: a net and, as the forward of images, targets and auxiliary inputs, its loss.

    All parameters are fitted; `net` alone is judged and kept. Of several processes each has some images of the batch
    and all targets: `whole` makes of its rows those of all, and every loss is that of the whole batch.
    """

    net: Any
    whole: Callable[[Tensor], Tensor] = staticmethod(same)

    def finished(self, net: nn.Module) -> nn.Module:
        """`net`, a copy of this objective's with the weights that are kept, without what this objective added to it."""
        return net


def _accelerator(device: str, precision: str) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision == "auto":
        precision = "bf16" if device != "cpu" and torch.cuda.is_bf16_supported() else "fp32"
    # The library keeps one state a process and refuses another precision: each training starts its own.
    AcceleratorState._reset_state()
    joined(device)
    return Accelerator(cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def _check_size(model: nn.Module, first: int, example: Tensor) -> None:
    """`InputError` when training cannot begin with images of `first` pixels."""
    if first > example.shape[2]:
        raise InputError(f"first_size must be at most the images' side, {example.shape[2]}, got {first}")
    with as_judged(model):
        run(model, resized(example, first))


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    spared = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    if not spared and not decayed:
        raise InputError("all weights are frozen, so that nothing can learn: net.requires_grad_(True) first")
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, fused=True)
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=True)


def _average(net: nn.Module, decay: float) -> AveragedModel:
    def update(averaged: Any, current: Any, step: int | Tensor) -> None:
        weight = 1 - ema_decay(int(step), decay)
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, weight)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return AveragedModel(net, multi_avg_fn=update, use_buffers=True)


def _lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Momentum in the memory layout of its parameter: the file keeps numbers, and sums depend on their order."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # Contiguous: the layout is for speed in training, and a reloaded checkpoint must compute the same bits.
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


class Float32Depthwise(TorchFunctionMode):
    """While open, bf16 depthwise convolutions of a stride or of 5x5 and more run in float32 on the CPU.

    oneDNN's backward pass for these is up to ten times as slow in bf16; everything else is faster in bf16. Outside
    autocast nothing changes.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        """`function(*arguments, **named)`, in float32 where that is faster."""
        named = named or {}
        if function is not torch.conv2d or len(arguments) < 4 or not torch.is_autocast_enabled("cpu"):
            return function(*arguments, **named)
        images, weight, _, stride = arguments[:4]
        depthwise = weight.shape[1] == 1 < images.shape[1]
        if not depthwise or (weight.shape[2] <= 3 and stride in (1, (1, 1))):
            return function(*arguments, **named)
        half = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return function(images.float(), *arguments[1:], **named).to(half)
