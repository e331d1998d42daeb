"""One net, one cut, one verdict: cut right, refused, wrong, or a crash."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedParameter
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from nets.catalogue import UserNet, example_of
from nets.project import Choice, Refused, call, cut
from solution.compress.coupling.absent import NAN, Present, Steady
from solution.contracts import copied

RATIOS = (0.3, 0.5, 0.7)
IMPORTANCES = ("group_norm", "random")
TOLERANCE = 1e-9
LEAST_MOVE = 1e-7
Setting = tuple[float, str]
"""A ratio and an importance."""
ORDER = ("cut", "refused", "wrong", "crash")


@dataclass(frozen=True)
class Outcome:
    """What became of one cut.

    kind   cut, refused, wrong or crash
    detail the reason, the error or the last lines of the traceback
    macs   the share of the full net's multiply-accumulates that is left, where it was cut
    plain  whether the full net with zeros in the columns that read the channels that went gives the same, too: a proof
           without marks, which holds where no statistic spans the channels
    """

    kind: str
    detail: str = ""
    macs: float = 1.0
    plain: bool = False


def outcome_of(user: UserNet, ratio: float, importance: str) -> Outcome:
    """Cut `user`'s net in this process and prove the cut."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net, example = user.build(), example_of(user.example, generator)
    if net.training:
        net.eval()
    if "double" in user.tags:  # scaled weights round
        net, example = _doubled(net), tree_map(_double, example)
    if any(isinstance(parameter, UninitializedParameter) for parameter in net.parameters()):
        call(net, example)
    return verdict(randomized(net, generator), example, ratio, importance)


def verdict(net: nn.Module, example: Any, ratio: float, importance: str) -> Outcome:
    """Cut a randomized `net` in evaluation mode and prove the cut."""
    try:
        small = cut(net, example, ratio, importance)
        choice = {name.removeprefix("module.").removeprefix("_orig_mod."): kept for name, kept in small.choice.items()}
        return proven(unwrapped(net), unwrapped(small.net), choice, example)
    except Refused as error:
        return Outcome("refused", str(error))
    except Exception:
        return Outcome("crash", "".join(traceback.format_exc().splitlines(keepends=True)[-6:]))


def proven(net: nn.Module, small: nn.Module, choice: Choice, example: Any) -> Outcome:
    """Whether `small` equals `net` without the channels that are not in `choice`, and differs from `net`."""
    example = tree_map(_double, example)
    whole, macs_before = _run(_frozen(net), example)
    got, macs_after = _run(_frozen(small), example)
    if [tuple(part.shape) for part in got] != [tuple(part.shape) for part in whole]:
        return Outcome("wrong", f"outputs {[tuple(part.shape) for part in got]}")
    errors = []
    for number, baseline in enumerate(baselines(net, choice)):
        with Present():
            errors.append(_distance(got, _run(_doubled(baseline), example, counted=False)[0]))
        if errors[-1] < TOLERANCE:
            moved, changed = _distance(got, whole), trains_otherwise(net, small, example)
            kind = "cut" if moved > LEAST_MOVE and not changed else "wrong"
            detail = changed or f"error {errors[number]:.0e}, moved {moved:.0e}"
            zeroed = _distance(got, _run(_doubled(hidden(net, choice)), example, counted=False)[0])
            return Outcome(kind, detail, macs_after / max(macs_before, 1), zeroed < TOLERANCE)
    return Outcome("wrong", "differs by " + " or ".join(f"{error:.0e}" for error in errors))


def trains_otherwise(net: nn.Module, small: nn.Module, example: Any) -> str:
    """What training reaches in one of the two nets and not in the other, "" when that is nothing."""
    try:
        before = _reached(net, example)
    except (RuntimeError, ValueError):  # a net that does not train on so few pictures
        return ""
    after = _reached(small, example)
    lost, new = sorted(before - after), sorted(after - before)
    return f"training after the cut: {lost} no longer learn, {new} are new" if lost or new else ""


def _reached(net: nn.Module, example: Any) -> set[str]:
    net = _doubled(copied(net)).train()
    outputs = [leaf for leaf in tree_leaves(_values(call(net, example))) if isinstance(leaf, Tensor)]
    sum(leaf.sum() for leaf in outputs if leaf.requires_grad).backward()
    return {_plain_name(name) for name, parameter in net.named_parameters() if parameter.grad is not None}


def unwrapped(net: nn.Module) -> nn.Module:
    """The net inside `torch.compile`, data parallelism or an average of weights."""
    if isinstance(net, nn.DataParallel | AveragedModel):
        return unwrapped(net.module)
    return unwrapped(net._orig_mod) if hasattr(net, "_orig_mod") else net


def baselines(net: nn.Module, choice: Choice) -> list[nn.Module]:
    """Copies of `net` in which the channels that go are marked; a right cut equals one of them.

    Weights that are computed (weight norm, weight standardization) may be computed over the inputs that stay, over all
    inputs, or once and for all before the cut.
    """
    tensors = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))
    found = []
    if all(name in tensors for name in choice):
        found = [_marked(net, choice, inputs) for inputs in (True, False)]
    plain = _plain(net)
    return found if plain is net else [*found, _marked(plain, _plain_choice(choice), True)]


def hidden(net: nn.Module, choice: Choice) -> nn.Module:
    """A copy of `net` whose layers do not read the channels that go."""
    return _marked(_plain(net), _plain_choice(choice), True, outputs=False, value=0.0)


def _marked(net: nn.Module, choice: Choice, inputs: bool, outputs: bool = True, value: float = NAN) -> nn.Module:
    """A copy of `net` with marks in its tensors, along the inputs or the outputs of its layers."""
    net = copied(net)
    tensors = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, places in choice.items():
            for axis, groups, kept in places:
                reads = tensors[name].ndim > 1 and _reads(net, name, axis)
                if inputs if reads else outputs:
                    _mark(tensors[name], axis, groups, [index for index in kept if index >= 0], value)
    return net


def _reads(net: nn.Module, name: str, axis: int) -> bool:
    layer = net.get_submodule(name.rpartition(".")[0].removesuffix(".parametrizations.weight"))
    return axis == (0 if getattr(layer, "transposed", False) else 1)


def _mark(tensor: Tensor, axis: int, groups: int, kept: list[int], value: float) -> None:
    """Along axis 1 of a grouped convolution `kept` counts the inputs of all groups one after another."""
    width = tensor.shape[axis]
    blocks = tensor.chunk(groups, 0) if groups > 1 and axis == 1 else [tensor]
    for number, block in enumerate(blocks):
        gone = sorted(set(range(width)) - {index - number * width for index in kept})
        block.index_fill_(axis, torch.tensor(gone, dtype=torch.long), value)


def _plain(net: nn.Module) -> nn.Module:
    """A copy of `net` whose computed weights are plain ones, or `net` where none is computed."""
    original, net = net, copied(net)
    changed = False
    for module in net.modules():
        for name in list(getattr(module, "parametrizations", {})):
            value = getattr(module, name).detach()
            module.__class__ = type(module).__mro__[1]
            del module.parametrizations
            module.register_parameter(name, nn.Parameter(value))
            changed = True
        for key, hook in list(module._forward_pre_hooks.items()):
            name = getattr(hook, "name", getattr(hook, "_tensor_name", None))
            if name is not None:
                hook(module, ())
                value = getattr(module, name).detach().clone()
                del module._forward_pre_hooks[key]
                module.__dict__.pop(name, None)
                module._buffers.pop(name, None)
                module.register_parameter(name, nn.Parameter(value))
                changed = True
    return net if changed else original


def _plain_name(name: str) -> str:
    head, _, tail = name.partition(".parametrizations.")
    if tail:
        return f"{head}.{tail.partition('.')[0]}"
    return name.removesuffix("_orig").removesuffix("_v").removesuffix("_g")


def _plain_choice(choice: Choice) -> Choice:
    names = sorted(choice, key=lambda name: len(choice[name]))  # lengths have one axis, directions have two
    return {_plain_name(name): choice[name] for name in names}


def _frozen(net: nn.Module) -> nn.Module:
    """A copy in double precision that only answers; the counter of products stumbles over what still learns."""
    return _doubled(copied(net)).eval().requires_grad_(False)


def _doubled(net: nn.Module) -> nn.Module:
    """In double precision, complex numbers too."""
    return net._apply(_double)


def _double(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_complex():
        return leaf.to(torch.complex128)
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _run(net: nn.Module, example: Any, counted: bool = True) -> tuple[list[Tensor], float]:
    """The floating-point outputs of `net`, and its multiply-accumulates where they are counted."""
    torch.manual_seed(0)
    fast, counter = torch.backends.mha.get_fastpath_enabled(), FlopCounterMode(display=False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Steady():
            if counted:
                with counter:
                    output = call(net, example)
            else:
                output = call(net, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    leaves = [leaf for leaf in tree_leaves(_values(output)) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return leaves, counter.get_total_flops() / 2 if counted else 0.0


def _values(output: Any) -> Any:
    """Outputs in classes of their own (dataclasses, objects with fields) as plain dicts."""
    if isinstance(output, Mapping):
        return dict(output)
    return vars(output) if hasattr(output, "__dict__") and not isinstance(output, Tensor) else output


def _distance(left: list[Tensor], right: list[Tensor]) -> float:
    """The largest difference, relative to the largest number of each output; infinite where one is not finite."""
    distances = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in zip(left, right, strict=True)]
    return max((distance if distance == distance else float("inf") for distance in distances), default=float("inf"))


def randomized(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """Random norm statistics, scales, biases and zero-initialized layers, in place: nothing passes by accident."""
    statistics = {name: buffer for name, buffer in net.named_buffers() if "running_" in name and buffer.ndim}
    with torch.no_grad():
        for name, tensor in (statistics | dict(net.named_parameters())).items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0.0, 0.2, generator=generator)
            elif tensor.squeeze().ndim <= 1 and tensor.numel() < 1024:
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif bool((tensor == tensor.flatten()[0]).all()):
                tensor.normal_(0.0, tensor[0].numel() ** -0.5, generator=generator)
    return net


class Worker:
    """A process of its own for nets that may end it or hang; a new one takes over from one that died.

    Use it in a ``with`` statement.
    """

    def __enter__(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_work, args=(end,), daemon=True)
        self.process.start()
        end.close()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.join()

    def outcomes(self, user: UserNet, settings: tuple[Setting, ...], seconds: float = 120.0) -> dict[Setting, Outcome]:
        """What becomes of `user`'s net at each setting."""
        self.pipe.send((user, settings))
        try:
            return self.pipe.recv() if self.pipe.poll(seconds) else self._replaced(settings)
        except (EOFError, ConnectionError):
            return self._replaced(settings)

    def _replaced(self, settings: tuple[Setting, ...]) -> dict[Setting, Outcome]:
        self.process.kill()
        self.process.join()
        died = Outcome("crash", f"the interpreter died or hung: exit code {self.process.exitcode}")
        self.__enter__()
        return dict.fromkeys(settings, died)


def _work(pipe: Any) -> None:
    torch.set_num_threads(1)
    while True:
        user, settings = pipe.recv()
        found = {}
        for ratio, importance in settings:
            try:
                found[ratio, importance] = outcome_of(user, ratio, importance)
            except Exception:
                found[ratio, importance] = Outcome("crash", "the net itself: " + traceback.format_exc()[-600:])
        pipe.send(found)


def worst(outcomes: list[Outcome]) -> Outcome:
    """The worst of several outcomes."""
    return max(outcomes, key=lambda outcome: ORDER.index(outcome.kind))
