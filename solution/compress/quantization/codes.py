"""The finished forms of a weight, as parametrizations: small integers and a scale, or half precision.

No float32 weight stays behind. What is stored are buffers: a later training leaves them alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from solution.compress.parametrized import materialize
from solution.compress.quantization.scales import along, grid_scale, levels
from solution.compress.quantization.schemes import HALVES, Scheme


class Codes(nn.Module):
    """int8 codes and one bfloat16 scale per output channel: ``weight = codes * scale``.

    State: ``original0`` the codes in the weight's shape, within `scheme.low` to `scheme.high`; ``original1`` (C,).
    """

    def __init__(self, scheme: Scheme, axis: int = 0, scale: Tensor | None = None) -> None:
        """`scale` (C,) is kept as it is given; None takes the best for the weight."""
        super().__init__()
        self.scheme, self.axis, self.bits = scheme, axis, scheme.bits
        self._given = scale

    def forward(self, codes: Tensor, scale: Tensor) -> Tensor:
        """The float32 weight."""
        return codes.float() * along(scale.float(), self.axis, codes.dim())

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The codes and the scale of a float weight."""
        scale = grid_scale(weight, self.scheme, self.axis) if self._given is None else self._given
        scale = scale.bfloat16()
        codes = levels(weight, scale.to(weight.dtype), self.scheme, self.axis)
        return codes.to(torch.int8), scale

    def extra_repr(self) -> str:
        """The scheme's name."""
        return self.scheme.name


class Half(nn.Module):
    """A tensor kept in half precision and computed with in float32. State: ``original0``, in the shape it had."""

    def __init__(self, name: str) -> None:
        """`name`: "float16" or "bfloat16"."""
        super().__init__()
        self.name, self.bits = name, 16

    def forward(self, kept: Tensor) -> Tensor:
        """The float32 tensor."""
        return kept.float()

    def right_inverse(self, tensor: Tensor) -> tuple[Tensor]:
        """A tuple of one: PyTorch lets only tuples change the type."""
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
    values = module._parameters.pop(name).detach()
    module.register_buffer(name, values)
    attach(module, name, form)
    if isinstance(form, Codes):
        form._given = None


def own_class(module: nn.Module) -> None:
    """A deep copy of a parametrized module shares its class, on which PyTorch keeps the properties: part the two."""
    if parametrize.is_parametrized(module):
        shared = type(module)
        module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))


def plain(module: nn.Module) -> None:
    """Replace what is parametrized in `module` by parameters of the same values; other copies of it keep theirs."""
    own_class(module)
    names = list(module.parametrizations) if parametrize.is_parametrized(module) else []
    materialize(module)
    for name in names:
        if name in module._buffers:
            module.register_parameter(name, nn.Parameter(module._buffers.pop(name)))


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
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], Codes):
            bits -= (8 - module[0].bits) * module.original0.numel()
    return -(-bits // 8)
