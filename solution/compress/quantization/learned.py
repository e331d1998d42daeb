"""The forms of a weight that train: learned step sizes, and signs with a mean. `Convert` makes them `Codes`.

LSQ: Esser et al., 2020, "Learned Step Size Quantization" (arXiv:1902.08153). Binary: Rastegari et al., 2016,
"XNOR-Net" (arXiv:1603.05279), with the straight-through gradient of Bengio et al., 2013 (arXiv:1308.3432).
"""

from __future__ import annotations

from torch import Tensor, nn

from solution.compress.quantization.codes import attach
from solution.compress.quantization.scales import along, binary_scale, grid_scale, rows, stored
from solution.compress.quantization.schemes import Scheme


def rounded(x: Tensor) -> Tensor:
    """The nearest integers; the gradient passes straight through. |x - round(x)| <= 1/2 makes the sum exact."""
    return x + (x.round() - x).detach() if x.requires_grad else x.round()


def clipped_to_grid(x: Tensor, scale: Tensor, low: int | Tensor, high: int | Tensor) -> Tensor:
    """`x` on the grid ``scale * {low, ..., high}``. The gradients are those of LSQ, equation 3.

    To x: 1 within the grid, 0 outside. To the scale: round(x / scale) - x / scale within, `low` or `high` outside.
    """
    return rounded((x / scale).clamp(low, high)) * scale


def damped(scale: Tensor, factor: float) -> Tensor:
    """`scale` as it will be stored; its gradient is multiplied by `factor`."""
    return stored(scale.detach()) + (scale.abs() - scale.abs().detach()) * factor


class LearnedStep(nn.Module):
    """LSQ with one step per output channel. State: ``scale`` (C,), a parameter beside the float weight."""

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
        return clipped_to_grid(weight, scale, self.scheme.low, self.scheme.high)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The float weight itself."""
        return weight

    def extra_repr(self) -> str:
        """The scheme's name."""
        return self.scheme.name


class Signs(nn.Module):
    """Binary weights: signs times the mean magnitude of each output channel. No state beside the float weight.

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
        return (sign + (sign == 0) + (through - through.detach())) * scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The float weight itself."""
        return weight

    def extra_repr(self) -> str:
        """The scheme's name."""
        return self.scheme.name


LEARNED = (LearnedStep, Signs)


def make_trainable(module: nn.Module, scheme: Scheme, axis: int) -> None:
    """Put the weight of `module` on a grid that trains; masks and other forms that it has stay before the grid."""
    form = Signs(scheme, axis) if scheme.bits == 1 else LearnedStep(module.weight.detach(), scheme, axis)
    attach(module, "weight", form)


def grid_of(module: nn.Module) -> LearnedStep | Signs | None:
    """The trainable grid of a module's weight, if it has one."""
    forms = getattr(module, "parametrizations", {})
    last = forms["weight"][-1] if "weight" in forms else None
    return last if isinstance(last, LEARNED) else None
