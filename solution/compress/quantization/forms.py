"""The forms of weights and inputs: finished ones, ones that train, and inputs on a grid of integers.

Codes, Half          finished weights, as parametrizations: small integers and a scale, or half precision. No float32
                     weight remains. What is stored are buffers: a later training leaves them alone
LearnedStep, Signs   weights that train behind a grid; `Convert` makes them `Codes`. LSQ: Esser et al., 2020
                     (arXiv:1902.08153). Binary: Rastegari et al., 2016 (XNOR-Net, arXiv:1603.05279), with the
                     straight-through gradient of Bengio et al., 2013 (arXiv:1308.3432)
FixedGrid, DynamicGrid  inputs, rounded by a pre-hook as an int8 runtime rounds them
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from solution.compress.layers import along
from solution.compress.parametrized import own_class
from solution.compress.quantization.schemes import HALVES, Scheme, binary_scale, grid_scale, levels, rows, stored

INPUT_GRID = "input_grid"
"""The name of the module that rounds a layer's input, within the layer."""
_NARROWEST = 1e-12
"""The narrowest range of inputs that is divided into steps: an input of zeros has none."""


class Codes(nn.Module):
    """int8 codes and one bfloat16 scale per output channel: ``weight = codes * scale``.

    State: ``original0`` the codes in the weight's shape, within `scheme.low` to `scheme.high`; ``original1`` (C,).
    """

    def __init__(self, scheme: Scheme, axis: int = 0, scale: Tensor | None = None) -> None:
        """`scale` (C,) is kept as it is given; None takes the best for the weight."""
        super().__init__()
        self.scheme, self.axis, self.bits = scheme, axis, scheme.bits
        self.dtype, self._given = torch.float32, scale

    def forward(self, codes: Tensor, scale: Tensor) -> Tensor:
        """The weight, in the precision that it had."""
        return (codes.float() * along(scale.float(), self.axis, codes.dim())).to(self.dtype)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The codes and the scale of a float weight."""
        scale = grid_scale(weight, self.scheme, self.axis) if self._given is None else self._given
        scale, self.dtype = scale.bfloat16(), weight.dtype
        return levels(weight, scale, self.scheme, self.axis).to(torch.int8), scale

    def extra_repr(self) -> str:
        """The scheme's name."""
        return self.scheme.name


class Half(nn.Module):
    """A tensor kept in half precision and computed with in its own. State: ``original0``, in the shape it had."""

    def __init__(self, name: str) -> None:
        """`name`: "float16" or "bfloat16"."""
        super().__init__()
        self.name, self.bits, self.dtype = name, 16, torch.float32

    def forward(self, kept: Tensor) -> Tensor:
        """The tensor, in the precision that it had."""
        return kept.to(self.dtype)

    def right_inverse(self, tensor: Tensor) -> tuple[Tensor]:
        """A tuple of one: PyTorch lets only tuples change the type."""
        self.dtype = tensor.dtype
        return (tensor.to(HALVES[self.name]),)

    def extra_repr(self) -> str:
        """The type's name."""
        return self.name


def attach(module: nn.Module, name: str, form: nn.Module) -> None:
    """Give tensor `name` of `module` the parametrization `form`, behind those that it has."""
    own_class(module)
    parametrize.register_parametrization(module, name, form)


def finish(module: nn.Module, name: str, form: Codes | Half) -> None:
    """Put plain parameter `name` of `module` into its finished form, which trains no more."""
    values = cast(Tensor, module._parameters.pop(name)).detach()
    module.register_buffer(name, values)
    attach(module, name, form)
    if isinstance(form, Codes):
        form._given = None


def set_values(module: nn.Module, name: str, values: Tensor) -> None:
    """Overwrite tensor `name` of `module`, in whatever form it is kept."""
    with torch.no_grad():
        if parametrize.is_parametrized(module, name):
            setattr(module, name, values)
        else:
            getattr(module, name).copy_(values)


def stored_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, codes counted with their bits, before any entropy coding."""
    bits = sum(tensor.numel() * tensor.element_size() * 8 for tensor in (*model.parameters(), *model.buffers()))
    for module in model.modules():
        form = module[0] if isinstance(module, parametrize.ParametrizationList) else None
        if isinstance(form, Codes):
            bits -= (8 - form.bits) * cast(Tensor, module.original0).numel()
    return -(-bits // 8)


def rounded(x: Tensor) -> Tensor:
    """The nearest integers; the gradient passes straight through. |x - round(x)| <= 1/2 makes the sum exact."""
    return x + (x.round() - x).detach() if x.requires_grad else x.round()


def clipped_to_grid(x: Tensor, scale: Tensor, low: int | Tensor, high: int | Tensor) -> Tensor:
    """`x` on the grid ``scale * {low, ..., high}``. The gradients are those of LSQ, equation 3.

    To x: 1 within the grid, 0 outside. To the scale: round(x / scale) - x / scale within, `low` or `high` outside.
    """
    ends: Any = (low, high)  # both numbers, or both tensors
    return rounded((x / scale).clamp(*ends)) * scale


def damped(scale: Tensor, factor: float) -> Tensor:
    """`scale` as it will be stored; its gradient is multiplied by `factor`."""
    return stored(scale.detach()) + (scale.abs() - scale.abs().detach()) * factor


class LearnedStep(nn.Module):
    """LSQ with one step per output channel. State: ``scale`` (C,), a parameter besides the float weight."""

    def __init__(self, weight: Tensor, scheme: Scheme, axis: int = 0) -> None:
        super().__init__()
        self.scheme, self.axis, self.bits = scheme, axis, scheme.bits
        self.scale = nn.Parameter(grid_scale(weight, scheme, axis))
        # Keeps the steps' updates as large, relative to the steps, as those of the weights (section 2.2).
        self.damping = (rows(weight, axis).shape[1] * scheme.high) ** -0.5

    def step(self, weight: Tensor) -> Tensor:
        """(C,) the steps as they will be stored."""
        return stored(self.scale.detach())

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its grid, differentiable in the weight and in the steps."""
        scale = along(damped(self.scale, self.damping), self.axis, weight.dim())
        return clipped_to_grid(weight, scale, self.scheme.low, self.scheme.high).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The float weight itself."""
        return weight

    def extra_repr(self) -> str:
        """The scheme's name."""
        return self.scheme.name


class Signs(nn.Module):
    """Binary weights: signs times the mean magnitude of each output channel. No state but the float weight.

    The gradient passes the sign where the weight lies within (-1, 1); the mean takes its own.
    """

    def __init__(self, scheme: Scheme, axis: int = 0) -> None:
        super().__init__()
        self.scheme, self.axis, self.bits = scheme, axis, scheme.bits

    def step(self, weight: Tensor) -> Tensor:
        """(C,) the factors as they will be stored."""
        return binary_scale(rows(weight, self.axis))

    def forward(self, weight: Tensor) -> Tensor:
        """Plus or minus the mean magnitude of the channel."""
        mean = weight.movedim(self.axis, 0).flatten(1).abs().mean(1)  # (C,)
        scale = along(damped(mean, 1.0), self.axis, weight.dim())
        sign = weight.detach().sign()
        through = weight.clamp(-1, 1)
        return ((sign + (sign == 0) + (through - through.detach())) * scale).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The float weight itself."""
        return weight

    def extra_repr(self) -> str:
        """The scheme's name."""
        return self.scheme.name


LEARNED = (LearnedStep, Signs)


def make_trainable(module: nn.Module, scheme: Scheme, axis: int) -> None:
    """Put the weight of `module` on a grid that trains; masks and other forms that it has stay before the grid."""
    weight = cast(Tensor, module.weight).detach()
    form = Signs(scheme, axis) if scheme.bits == 1 else LearnedStep(weight, scheme, axis)
    attach(module, "weight", form)


def grid_of(module: nn.Module) -> LearnedStep | Signs | None:
    """The trainable grid of a module's weight, if it has one."""
    forms = getattr(module, "parametrizations", {})
    last = forms["weight"][-1] if "weight" in forms else None
    return last if isinstance(last, LEARNED) else None


class InputGrid(nn.Module):
    """Inputs on 2**bits levels, of which 0 is one: ``scale * {low, ..., high}`` with ``high - low = 2**bits - 1``."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits


class FixedGrid(InputGrid):
    """One step for all inputs. State: ``scale`` (1,), a parameter when it learns, else a buffer."""

    def __init__(self, bits: int, low: float, high: float, qat: bool) -> None:
        """A grid for inputs from `low` to `high`; `qat` lets its step train (LSQ)."""
        super().__init__(bits)
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, _NARROWEST) / (2**bits - 1)
        self.low = -round(-low / scale)
        self.high = 2**bits - 1 + self.low
        step = torch.tensor([scale])
        if qat:
            self.scale = nn.Parameter(step)
        else:
            self.register_buffer("scale", step)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, each number at its nearest level."""
        scale = self.scale
        if scale.requires_grad:
            # Section 2.2 of LSQ: steps must not learn faster, relative to their size, than weights.
            factor = (x[0].numel() * max(self.high, -self.low)) ** -0.5
            scale = scale.detach().abs() + (scale.abs() - scale.detach().abs()) * factor
        return clipped_to_grid(x, scale, self.low, self.high).to(x.dtype)

    def extra_repr(self) -> str:
        """Bits and levels."""
        return f"{self.bits} bits, {self.low} to {self.high}"


class DynamicGrid(InputGrid):
    """A step for each image, from the smallest to the largest number of the layer's input for it. No state.

    Each entry of the first axis has a range of its own, so the output for an image does not depend on the others.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, ...), each number at its nearest level."""
        rest = tuple(range(1, x.dim()))
        seen = x.detach().float()  # in half precision the narrowest range would be 0
        least, most = seen.amin(rest, keepdim=True).clamp(max=0), seen.amax(rest, keepdim=True).clamp(min=0)
        scale = (most - least).clamp_min(_NARROWEST) / (2**self.bits - 1)  # (B, 1, ...)
        low = (least / scale).round()
        return clipped_to_grid(x, scale, low, low + 2**self.bits - 1).to(x.dtype)

    def extra_repr(self) -> str:
        """Bits."""
        return f"{self.bits} bits"


def _round_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (module.get_submodule(INPUT_GRID)(inputs[0]), *inputs[1:])


def quantize_inputs(module: nn.Module, grid: InputGrid) -> None:
    """Let `module` see its input through `grid`. A deep copy of it keeps both."""
    if not hasattr(module, INPUT_GRID):
        module.register_forward_pre_hook(_round_inputs)
    module.add_module(INPUT_GRID, grid)


def keep_inputs_float(net: nn.Module) -> int:
    """Take the grids of all layers' inputs away, in place, and return how many there were."""
    rounding = [module for module in net.modules() if hasattr(module, INPUT_GRID)]
    for module in rounding:
        delattr(module, INPUT_GRID)
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is _round_inputs:
                del module._forward_pre_hooks[key]
    return len(rounding)
