"""One training on several processes, as `accelerate launch` and `torchrun` start them: the losses of one process.

Each process has some rows of every batch. Losses see the outputs of the whole batch, batch norms its statistics,
random numbers are drawn for all of it and gradients are averaged, so that a training on N processes is that of one, up
to the order in which numbers are added.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from solution.contracts import InputError
from solution.data.views import TrainLoader, Views, rows_of, train_loader
from solution.runtime import set_threads
from solution.train.link import link_of

_PATIENCE = datetime.timedelta(days=30)
"""One process judges and exports while the others wait; a process that dies is noticed by what started it."""
_LEAST_ROWS = 2


def joined(device: str) -> Any:
    """Join the processes that share this run: one, unless a launcher started it. Returns `accelerate.PartialState`."""
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    set_threads()  # the library sets them too when there are several processes
    return state


class Processes:
    """The processes of one training, and the rows of the present batch that this one has.

    count, rank  how many there are, and which one this is
    """

    def __init__(self, state: Any) -> None:
        """`state` has `num_processes`, `process_index` and `device`."""
        self.count, self.rank = state.num_processes, state.process_index
        # The library numbers processors as well, and a move to "cpu:0" copies what lies on "cpu".
        self.device = torch.device("cpu") if state.device.type == "cpu" else state.device
        self.rows, self.total = slice(0), 0
        self.link = link_of(state) if self.count > 1 and self.device.type == "cpu" else None

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.count > 1

    def batches(self, loader: Any) -> SharedBatches:
        """The batches of `loader`, cut."""
        return SharedBatches(loader, self)

    def take(self, total: int) -> None:
        """The present batch has `total` rows. `InputError` when they are too few to be shared."""
        if total < _LEAST_ROWS * self.count:
            raise InputError(
                f"{self.count} processes cannot share a batch of {total} pictures: set data.batch_size to "
                f"{_LEAST_ROWS * self.count} or more, or start fewer processes"
            )
        self.rows, self.total = rows_of(total, self.rank, self.count), total

    def whole(self, rows: Tensor) -> Tensor:
        """The rows of all processes (total, ...) of this one's; the gradient goes back to its own."""
        return Whole.apply(rows, self) if self.several else rows

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor`, in place the sum of those of all processes: the same bits in each."""
        if self.link:
            self.link.sum(tensor)
        else:
            torch.distributed.all_reduce(tensor)
        return tensor

    def average_gradients(self, model: nn.Module) -> None:
        """The mean over all processes in place of each gradient."""
        gradients = [_in_memory_order(one.grad) for one in model.parameters() if one.grad is not None]
        if not self.several or not gradients:
            return
        if self.link:
            self.link.sum_in_memory(gradients, self.count)
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        parts = self.sum(flat).div_(self.count).split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [a.view(b.shape) for a, b in zip(parts, gradients, strict=True)])

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """The first process's weights in all: another kind of processor may have computed other last bits."""
        if self.several:
            for tensor in model.state_dict().values():
                own = tensor.contiguous()
                torch.distributed.broadcast(own, 0)
                tensor.copy_(own)

    def judging(self, predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """`predict` of a batch, its rows shared out."""

        def shared(images: Tensor) -> Tensor:
            if not self.several or len(images) < self.count:
                return predict(images)
            self.rows, self.total = rows_of(len(images), self.rank, self.count), len(images)
            return self.whole(predict(images[self.rows]))

        return shared


def _in_memory_order(tensor: Tensor) -> Tensor:
    """(O, I, H, W) with its channels last, where they are last in memory: it is then copied as a whole."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.permute(0, 2, 3, 1) if last else tensor


class SharedBatches:
    """This process's images of every batch of a loader, and all else of it whole, on the device.

    Of our own data sets a process makes its own views alone; of other loaders it takes its rows.
    """

    def __init__(self, loader: Any, processes: Processes) -> None:
        self.processes, self.loader, self.full = processes, loader, 0
        if isinstance(loader, TrainLoader) and isinstance(loader.dataset, Views):
            sampler: Any = loader.batch_sampler
            self.full = min(sampler.batch_size, len(loader.dataset))
            shared = sampler.part_of(processes.rank, processes.count)
            self.loader = train_loader(loader.dataset, shared, loader.num_workers)

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for images, *others in self.loader:
            self.processes.take(self.full or len(images))
            own = images if self.full else images[self.processes.rows]
            moved = [part.to(self.processes.device) for part in others]
            whole = [self.processes.whole(part) for part in moved] if self.full else moved
            yield own.to(self.processes.device), *whole


class Whole(torch.autograd.Function):
    """The rows of all processes, of a batch that they share.

    All compute the same loss of it, and gradients are averaged: so its own rows' gradient counts `count` times.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, processes: Processes) -> Tensor:
        """(rows, ...) to (total, ...)."""
        ctx.rows, ctx.count = processes.rows, processes.count
        whole = rows.new_zeros((processes.total, *rows.shape[1:]))
        whole[processes.rows] = rows
        return processes.sum(whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """(total, ...) to (rows, ...)."""
        return gradient[ctx.rows] * ctx.count, None


class BatchNorm(torch.autograd.Function):
    """Batch norm by the statistics of the rows of all processes (Ioffe and Szegedy, 2015, arXiv:1502.03167)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, settings: Any, own: Processes) -> Tensor:
        """(B, C, ...) normed; settings: running mean and variance (C,), updated in place, or None; momentum, eps."""
        *running, eps = settings
        share = (own.rows.stop - own.rows.start) / own.total
        # Statistics have the precision of what they would update.
        zero = None if x.dtype == weight.dtype else torch.zeros_like(weight)
        mean, square = sums = torch.stack(torch.batch_norm_update_stats(x, zero, zero, 0.0)).double()  # (2, C)  # type: ignore[call-arg]
        square.addcmul_(mean, mean)
        own.sum(sums.mul_(share))
        square.addcmul_(mean, mean, value=-1).clamp_(min=0)  # the variance again
        mean, variance = sums.to(weight)
        values = x.numel() / len(mean) / share
        if running[0] is not None:
            running[0].lerp_(mean, running[2])
            running[1].lerp_(variance * (values / (values - 1)), running[2])
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.own, ctx.values, ctx.eps = own, values, eps
        return torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, weight and bias."""
        x, weight, mean, variance = ctx.saved_tensors
        _, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = ctx.own.sum(torch.stack((dbias, dweight)).double())
        dmean, dvariance = sums.div_(ctx.values).to(weight)
        inverse = (variance + ctx.eps).rsqrt_()
        factor = weight * inverse
        slope = factor * inverse * dvariance
        shift = slope * mean - factor * dmean
        # factor * (gradient - dmean - (x - mean) * inverse * dvariance)
        factor, slope, shift = (one.view(1, -1, *[1] * (x.ndim - 2)) for one in (factor, slope, shift))
        dx = torch.addcmul(shift, gradient, factor).addcmul_(x, slope, value=-1)
        return dx.to(x.dtype), dweight, dbias, None, None


class OverTheWholeBatch(TorchFunctionMode):
    """While open, what mixes the rows of a batch or draws numbers for each does so for the rows of all processes.

    Batch norms, dropout (of elements and of channels), and what is drawn by `torch.rand` or `bernoulli_` with a row for
    each of the batch's, as branches that are skipped are. Other random numbers are each process's own.
    """

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes
        self.own: dict[Any, Callable[..., Any]] = {
            F.batch_norm: self.batch_norm,
            torch.rand: self.rand,
            torch.Tensor.bernoulli_: self.bernoulli_,
            **{one: self.dropping(one) for one in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)},
        }

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        """`function(*arguments, **named)`, of the whole batch where that makes a difference."""
        return self.own.get(function, function)(*arguments, **(named or {}))

    @property
    def num_rows(self) -> int:
        """How many rows this process has."""
        return self.processes.rows.stop - self.processes.rows.start

    def batch_norm(self, input: Tensor, running_mean: Any, running_var: Any, *others: Any, **named: Any) -> Tensor:
        """As `F.batch_norm`."""
        defaults = {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5}
        given: dict[str, Any] = defaults | dict(zip(defaults, others, strict=False)) | named
        if not given["training"]:
            return F.batch_norm(input, running_mean, running_var, **given)
        weight, bias, _, momentum, eps = given.values()
        like = running_mean if weight is None and running_mean is not None else input if weight is None else weight
        weight = like.new_ones(input.shape[1]) if weight is None else weight
        bias = torch.zeros_like(weight) if bias is None else bias
        return BatchNorm.apply(input, weight, bias, (running_mean, running_var, momentum, eps), self.processes)

    def dropping(self, dropout: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`dropout`, drawn for the whole batch."""

        def whole(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
            if not training or not p or len(input) != self.num_rows:
                return dropout(input, p, training, inplace)
            kept = dropout(input.new_ones((self.processes.total, *input.shape[1:])), p, True)[self.processes.rows]
            return input.mul_(kept) if inplace else input * kept

        return whole

    def rand(self, *size: Any, **named: Any) -> Tensor:
        """As `torch.rand`."""
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        if not shape or shape[0] != self.num_rows:
            return torch.rand(*size, **named)
        return torch.rand((self.processes.total, *shape[1:]), **named)[self.processes.rows]

    def bernoulli_(self, tensor: Tensor, *arguments: Any, **named: Any) -> Tensor:
        """As `Tensor.bernoulli_`."""
        if not tensor.ndim or len(tensor) != self.num_rows:
            return tensor.bernoulli_(*arguments, **named)
        drawn = tensor.new_empty((self.processes.total, *tensor.shape[1:])).bernoulli_(*arguments, **named)
        return tensor.copy_(drawn[self.processes.rows])
