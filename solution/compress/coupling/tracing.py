"""A model and an example input in, a list of ATen calls out: what ran, on which parameters, in what shapes.

The model is copied onto fake tensors (shapes without memory) and its real forward runs once on them, so tracing costs
no arithmetic, leaves the model untouched and works with any Python control flow that does not look at tensor values.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.nn.modules import transformer

from solution.compress.coupling.inputs import call, shapes_of, tensors_in, with_tensors
from solution.compress.coupling.recorder import Recorded, Recorder, Ref, Shapes, blank
from solution.contracts import InputError
from solution.copying import copied, forget_computed
from solution.graph import uncompiled, while_hooked

MOST_VALUES = 256
"""Elements of constants whose values are compared."""
_OWN_FILES = (f"{Path(torch.__file__).parent}/", f"{Path(__file__).parent}/")


class TraceError(InputError):
    """The forward pass in `mode` failed after `position` calls in the module named `where`; the last module that had
    ended before was `after`; `begun` is the pass up to there.
    """

    begun: Trace | None = None

    def __init__(self, message: str, where: str, after: str, mode: str = "eval", position: int = 0) -> None:
        super().__init__(message)
        self.where = where
        self.after = after
        self.mode = mode
        self.position = position


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One forward pass.

    calls       in the order in which they were made
    inputs      the tensors of the example
    shapes      of every `Ref`: first the tensors below in order, then the inputs, then what turns up
    constants   numbers of those that no call made and that are neither: values which the forward holds, with a text
                of the values of the small ones
    outputs     what it returns, a `Ref` for each tensor
    tensors     names of parameters and buffers, each tensor once (the first of its names)
    parameters  which of them are parameters
    mode        "eval" or "train"
    """

    calls: tuple[Recorded, ...]
    inputs: tuple[Ref, ...]
    shapes: tuple[tuple[int, ...], ...]
    constants: dict[int, str]
    outputs: Any
    tensors: tuple[str, ...]
    parameters: frozenset[str]
    mode: str

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Shape of a tensor of the pass."""
        return self.shapes[ref.number]

    def source(self, ref: Ref) -> str | None:
        """Name of the parameter or buffer that it is, None for any other tensor."""
        return self.tensors[ref.number] if ref.number < len(self.tensors) else None

    def unused(self) -> list[str]:
        """Parameters that this pass never read."""
        read = {
            ref.number for values in (*(call.arguments for call in self.calls), self.outputs) for ref in refs_in(values)
        }
        return [name for number, name in enumerate(self.tensors) if name in self.parameters and number not in read]


def refs_in(value: Any) -> list[Ref]:
    """Every `Ref` in nested lists and dictionaries."""
    if isinstance(value, Ref):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [ref for item in items for ref in refs_in(item)]


@contextlib.contextmanager
def shapes_only() -> Iterator[FakeTensorMode]:
    """A mode in which tensors have shapes and no memory."""
    with _quiet(), Shapes(allow_non_fake_inputs=True) as mode:
        yield mode


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def meta_copy(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], mode: FakeTensorMode) -> nn.Module:
    """A copy of `model` whose parameters and buffers have no memory, some of them other `shapes`, by name."""
    memo: dict[int, object] = {}
    with unset_fake_temporarily():  # tensors that are neither keep their values
        for name, tensor in named_tensors(model).items():
            made = (
                blank(shapes[name], tensor, mode)
                if name in shapes
                else blank(tensor.shape, tensor, mode, tensor.stride())
            )
            if isinstance(tensor, nn.Parameter):
                made.requires_grad_(tensor.requires_grad)
                made._is_param = True  # nn.Parameter(made) would dispatch a detach, which takes longer than all else
            memo[id(tensor)] = made
        return forget_computed(copied(model, memo))


def trace(meta: nn.Module, example: Any, mode: FakeTensorMode) -> Trace:
    """What a forward of `meta` on `example` calls, in the mode (train or eval) that `meta` is in.

    Raises `TraceError` naming the line and the module when the forward fails or branches on tensor values.
    """
    tensors, fake = named_tensors(meta), with_tensors(mode.from_tensor, example)
    inputs = tensors_in(fake)
    recorder = Recorder([*tensors.values(), *inputs])
    given = tuple(recorder.refs(one) for one in inputs)  # before the forward writes into them

    def noted(outputs: Any) -> Trace:
        return Trace(
            calls=tuple(recorder.calls),
            inputs=given,
            outputs=[recorder.refs(leaf) for leaf in tensors_in(outputs)],
            shapes=tuple(tuple(tensor.shape) for tensor in recorder.tensors),
            constants={number: _values(recorder.tensors[number]) for number in recorder.constants},
            tensors=tuple(tensors),
            parameters=frozenset(dict(meta.named_parameters())),
            mode="train" if meta.training else "eval",
        )

    contexts = torch.no_grad(), _attention_whole(), uncompiled(), enable_python_dispatcher()
    with _module_path(meta) as (path, ended), contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        recorder.path = path
        try:
            with recorder:
                outputs = call(meta, fake)
        except Exception as error:
            where, after = (names[-1] if names else "" for names in (path, ended))
            made = "train" if meta.training else "eval"
            message = _message(error, meta, example, path)
            failed = TraceError(message, where, after, made, len(recorder.calls))
            failed.begun = noted(())
            raise failed from error
    return noted(outputs)


def _values(tensor: Tensor) -> str:
    """The elements of a small tensor that has memory."""
    held = tensor.constant if isinstance(tensor, FakeTensor) else tensor
    if held is None or held.numel() > MOST_VALUES or held.is_meta:
        return ""
    with unset_fake_temporarily():
        return str(held.tolist())


@contextlib.contextmanager
def _attention_whole() -> Iterator[None]:
    """Without torch's shortcut for inference, which hides the projections of an attention in one call, and without its
    look at a mask's values for whether it is a causal one: as such it would only be computed faster.
    """
    before, looks = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = looks
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _module_path(model: nn.Module) -> Iterator[tuple[list[str], list[str]]]:
    """Names of the modules that run, outermost first, and of those that have ended. After an error it shows where."""
    path: list[str] = []
    ended: list[str] = []
    handles = []

    def leave(_module: nn.Module, _inputs: object, _output: object) -> None:
        ended.append(path.pop())

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _module, _inputs, name=name: path.append(name)))
        handles.append(module.register_forward_hook(leave))
    with while_hooked(handles):
        yield path, ended


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch logs errors of fake tensors besides raising them, and takes a stack trace for each tensor that it makes."""
    loggers = [logging.getLogger(name) for name in ("torch._subclasses.fake_tensor", "torch.__trace")]
    before = [(logger.disabled, logger.handlers) for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled, logger.handlers = True, []
        yield
    finally:
        for logger, (disabled, handlers) in zip(loggers, before, strict=True):
            logger.disabled, logger.handlers = disabled, handlers


def _message(error: Exception, model: nn.Module, example: Any, path: list[str]) -> str:
    where = f"{type(model).__name__}{'.' + path[-1] if path and path[-1] else ''}"
    line = _users_line(error)
    text = str(error).strip().splitlines()
    if "BatchedTensor" in str(error) or "functorch" in str(error):
        return (
            f"the forward of {where} calls a transform of torch.func, such as vmap or grad ({line}), which cannot be "
            "followed. Write that part without it, or compress the part around it"
        )
    if _depends_on_data(error):
        return (
            f"the forward of {where} branches on tensor values ({line}); which way cannot be known without "
            "data. Move that decision out of the forward, or compress the part around it"
        )
    return (
        f"{where} does not run on an example of shape {shapes_of(example)} ({line}): "
        f"{text[0] if text else type(error).__name__}. Pass an example of the shapes and types that the model expects"
    )


def _depends_on_data(error: Exception) -> bool:
    signs = (
        "DataDependent",
        "data-dependent",
        "tracing tensor",
        "Could not guard",
        "GuardOnData",
        "_local_scalar_dense",
    )
    return any(sign in type(error).__name__ or sign in str(error) for sign in signs)


def _users_line(error: BaseException) -> str:
    """The innermost line of the traceback that is neither torch's nor ours: `file:line: code`."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_OWN_FILES) and frame.line]
    if not theirs:
        return "an unknown line"
    return f"{theirs[-1].filename}:{theirs[-1].lineno}: {theirs[-1].line}"
