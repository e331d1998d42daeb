"""Residual blocks: the modules that a net can do without, found in any net by running it.

A block returns its input together with what it computes (He et al., 2016, arXiv:1603.05027), so the net still runs
without it. No rule names a model: with all its weights at zero, a block still returns values of its input, unchanged (a
sum) or moved to other channels (a split, a shuffle). A plain convolution then returns zeros, and a gate less.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from solution.compress.coupling.inputs import tensors_in
from solution.compress.layers import module_at
from solution.compress.parametrized import materialize_all
from solution.contracts import Example, copied
from solution.evaluate.cost import params, watched
from solution.graph import as_judged, call, one_for, run, while_hooked

CONTAINERS = (nn.Sequential, nn.ModuleList)
LOUD = 100.0
"""Standard deviation of the noise that is sent through a block: so loud that smooth activations pass it unbent."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block that can go.

    path    module path
    stage   path of the container that holds it
    macs    multiply-accumulates that one image spends in it
    params  its parameters
    listed  its container is not run as a plain sequence: a `PassThrough` has to take its place
    """

    path: str
    stage: str
    macs: int
    params: int
    listed: bool


@dataclass(frozen=True, kw_only=True)
class ResidualStage:
    """A container of blocks.

    size    how many blocks it has, with those that change the shape and cannot go
    blocks  those that can go, in order of execution
    """

    path: str
    size: int
    blocks: tuple[Block, ...]


class PassThrough(nn.Module):
    """Stands where a block was: its first input is its output."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """`x`."""
        return x


def stages_of(model: nn.Module, example: Example) -> tuple[ResidualStage, ...]:
    """Every container with blocks of a kind that can go somewhere in the net; one may have none left that can.

    example: (B, C, H, W); its first image is run. `InputError` when the net does not take it.
    """
    blocks = blocks_of(model, example)
    kinds = {type(model.get_submodule(block.path)) for block in blocks}
    stages = []
    for path, container in model.named_modules():
        size = sum(type(child) in kinds for child in container.children()) if isinstance(container, CONTAINERS) else 0
        if size:
            own = tuple(block for block in blocks if block.stage == path)
            stages.append(ResidualStage(path=path, size=size, blocks=own))
    return tuple(stages)


def blocks_of(model: nn.Module, example: Example) -> tuple[Block, ...]:
    """Every block without which the net still returns the same shape, in order of execution."""
    probe = materialize_all(copied(model))  # weights that are computed would not stay zero
    seen = _watch(probe, example)
    with as_judged(probe):
        passing = [path for path, call in seen.calls.items() if _returns_input(probe.get_submodule(path), call)]
    # A stage returns its input too; the blocks are the smallest modules that do.
    paths = [path for path in passing if not any(other.startswith(f"{path}.") for other in passing)]
    macs = _macs_inside(model, example, paths)
    found = [
        Block(
            path=path,
            stage=path.rpartition(".")[0],
            macs=macs[path],
            params=params(model.get_submodule(path)),
            listed=path.rpartition(".")[0] not in seen.sequences,
        )
        for path in paths
    ]
    return _spared(model, example, found)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """How a module was called: its first input, and the others."""

    x: Tensor
    others: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """What one forward pass showed.

    calls      module path -> the first call that kept the shape
    sequences  paths of the containers that ran as plain sequences
    """

    calls: dict[str, _Call] = field(default_factory=dict)
    sequences: set[str] = field(default_factory=set)


def _watch(model: nn.Module, example: Example) -> _Recorded:
    """Run `model` and remember the calls of the weighty children of containers that kept the shape of their input."""
    seen = _Recorded()
    handles = [
        module.register_forward_hook(_remember(seen, path), with_kwargs=True) for path, module in _in_containers(model)
    ]
    handles += [
        module.register_forward_hook(lambda *_, path=path: seen.sequences.add(path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    ]
    with while_hooked(handles), as_judged(model):
        run(model, one_for(model, example))
    return seen


def _in_containers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, container in model.named_modules():
        if isinstance(container, CONTAINERS):
            for name, child in container.named_children():
                if any(parameter.dim() >= 2 for parameter in child.parameters()):
                    yield (f"{path}.{name}" if path else name), child


def _remember(seen: _Recorded, path: str) -> Callable[..., None]:
    def hook(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        x = inputs[0] if inputs else None
        if isinstance(x, Tensor) and isinstance(output, Tensor) and x.shape == output.shape and x.is_floating_point():
            seen.calls.setdefault(path, _Call(x=x, others=inputs[1:], named=named))

    return hook


def _returns_input(module: nn.Module, call: _Call) -> bool:
    """Whether `module` returns values of its input when all its weights are zero. They are zero afterwards."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.zero_()
    noise = torch.randn(call.x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    noise = (LOUD * noise).to(call.x)
    output = module(noise.clone(), *call.others, **call.named)
    loud = output[output.abs() > 1]
    return loud.numel() > 0 and float(torch.isin(loud, noise).float().mean()) > 0.5


def _macs_inside(model: nn.Module, example: Example, paths: Iterable[str]) -> dict[str, int]:
    """Path -> multiply-accumulates that one image spends in that module. The modules do not hold each other."""
    names = {model.get_submodule(path): path for path in paths}
    spent, inside = dict.fromkeys(names.values(), 0), []

    def entered(module: nn.Module) -> None:
        if module in names:
            inside.append(names[module])

    def left(module: nn.Module, counted: int) -> None:
        if inside:
            spent[inside[-1]] += counted
        if module in names:
            inside.pop()

    with as_judged(model), watched(model, entered, left):
        run(model, one_for(model, example))
    return spent


def _spared(model: nn.Module, example: Example, blocks: list[Block]) -> tuple[Block, ...]:
    """The blocks without which the net runs. All at once is the usual case; one by one is looked at when it fails."""
    shapes = _output_shapes(model, example)
    if _output_shapes(taken_out(model, blocks), example) == shapes:
        return tuple(blocks)
    return tuple(block for block in blocks if _output_shapes(taken_out(model, [block]), example) == shapes)


def _output_shapes(model: nn.Module, example: Example) -> list[tuple[int, ...]] | None:
    """The shapes of all outputs for one image; None when the net does not run."""
    try:
        with as_judged(model):
            output = call(model, one_for(model, example))
    except Exception:  # whatever a net cannot do without the block, the block has to stay
        return None
    return [tuple(one.shape) for one in tensors_in(output)]


def taken_out(model: nn.Module, blocks: Iterable[Block]) -> nn.Module:
    """A copy of `model` without `blocks`."""
    blocks = list(blocks)
    listed = {block.path for block in blocks if block.listed}
    return without(copied(model), [block.path for block in blocks], listed)


def without(model: nn.Module, paths: Iterable[str], listed: Collection[str] = ()) -> nn.Module:
    """Take the blocks at `paths` out of `model`, in place; a `PassThrough` takes the place of the `listed` ones.

    `InputError` for a block that the net does not have.
    """
    for path in paths:
        module_at(model, path, f"block {path!r}")
        container, name = model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
        if path in listed:
            container._modules[name] = PassThrough()
        else:
            del container._modules[name]
    return model
