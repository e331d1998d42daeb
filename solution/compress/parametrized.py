"""Weights that are computed from other tensors before each call: what computes them, and how they become plain.

Our own forms (kept zeros, codebooks, quantizers) are parametrizations of PyTorch on ordinary layers, so that cost,
audit and export still see the layers. Nets of others bring weight norm and spectral norm (by parametrization or by the
older hooks), masks of `torch.nn.utils.prune`, orthogonal weights, equalized learning rates by hooks. All are handled
here: `computed` names them, `materialize` puts the values in their place, `note_computed` tells the user.

A step that has to reshape a weight materializes it first: zeros stay zeros, and clustered values stay among the values
of their codebook, but a training after that may move them. What is computed inside a forward is another matter: the
layer keeps its class and its forward, and a step works on the tensor that is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from solution.contracts import copied

_SOURCES = ("_orig", "_g", "_v", "_u", "_mask")
"""How the tensors are called, after the weight's name, that hooks compute a weight from."""


MASKS = frozenset({"KeepZeros", "PruningMask"})
"""Forms by which zeros stay zeros in training."""


class KeepZeros(nn.Module):
    """Parametrization of a weight whose zeros are its mask: they get no gradient, so no optimizer moves them."""

    def forward(self, weight: Tensor) -> Tensor:
        """The same values. Any shape."""
        return weight.masked_fill(weight == 0, 0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Weights may be set."""
        return weight


def computed(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """{tensor of `module` itself that is computed from others: the classes of what computes it}.

    Such as ``{"weight": ("KeepZeros", "LearnedStep")}`` or ``{"weight": ("WeightNorm",)}``.
    """
    found: dict[str, tuple[str, ...]] = {
        name: ("PruningMask" if isinstance(hook, prune.BasePruningMethod) else type(hook).__name__,)
        for name, hook in _hooks(module).items()
    }
    if parametrize.is_parametrized(module):
        found |= {
            name: tuple(type(form).__name__.lstrip("_") for form in forms)
            for name, forms in cast(dict[str, Any], module.parametrizations).items()
        }
    return found


def _hooks(module: nn.Module) -> dict[str, Callable[..., Any]]:
    """{tensor that is made before each call: the hook that makes it}."""
    made = {}
    for hook in module._forward_pre_hooks.values():
        name = getattr(hook, "_tensor_name", None) or getattr(hook, "name", None)
        own = module._parameters | module._buffers
        if (
            isinstance(name, str)
            and isinstance(vars(module).get(name), Tensor)
            and any(f"{name}{source}" in own for source in _SOURCES)
        ):
            made[name] = hook
    return made


def is_masked(module: nn.Module) -> bool:
    """Whether zeros of the weight of `module` are kept in training: by `KeepZeros`, or by `torch.nn.utils.prune`."""
    return not MASKS.isdisjoint(computed(module).get("weight", ()))


def keep_zeros(module: nn.Module) -> None:
    """From now on the zeros of the weight of `module`, which is plain, stay zeros in training."""
    own_class(module)
    parametrize.register_parametrization(module, "weight", KeepZeros())


def own_class(module: nn.Module) -> None:
    """A deep copy of a parametrized module shares its class, on which PyTorch keeps the properties: part the two."""
    if parametrize.is_parametrized(module):
        kind = type(module)
        own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
        module.__class__ = type(kind.__name__, kind.__bases__, own)


def materialize(module: nn.Module) -> nn.Module:
    """Replace every computed tensor of `module` itself by its values, in place. Returns `module`.

    A weight of trainable sources is trainable, one of frozen sources or of stored codes is not.
    """
    for name, hook in sorted(_hooks(module).items(), key=lambda made: -len(made[0])):  # weight_v before weight
        _unhook(module, name, hook)
    if parametrize.is_parametrized(module):
        own_class(module)
        forms = cast(nn.ModuleDict, module.parametrizations)
        forms.eval()  # spectral norm's estimate moves at every look in training
        for name in list(forms):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            getattr(module, name).grad = None  # a gradient of the codebook would not have the weight's shape
    return module


def _unhook(module: nn.Module, name: str, hook: Callable[..., Any]) -> None:
    """Put the values of tensor `name`, which `hook` computes, in its place as a parameter."""
    own = module._parameters
    sources = [own.get(name + source) for source in _SOURCES]
    trains = any(source.requires_grad for source in sources if source is not None)
    if isinstance(hook, prune.BasePruningMethod):
        prune.remove(module, name)
    elif isinstance(hook, WeightNorm):
        remove_weight_norm(module, name)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(module, name)
    else:
        with torch.no_grad():
            hook(module, ())
        values = vars(module).pop(name).detach().clone()
        for key in [key for key, other in module._forward_pre_hooks.items() if other is hook]:
            del module._forward_pre_hooks[key]
        for source in _SOURCES:
            own.pop(name + source, None)
            module._buffers.pop(name + source, None)
        module.register_parameter(name, nn.Parameter(values))
    getattr(module, name).requires_grad_(trains)


def plain(module: nn.Module) -> None:
    """As `materialize`, and stored codes become parameters too."""
    names = computed(module)
    materialize(module)
    for name in names:
        if name in module._buffers:
            module.register_parameter(name, nn.Parameter(cast(Tensor, module._buffers.pop(name))))


def materialize_all(model: nn.Module) -> nn.Module:
    """`materialize` every module of `model`, in place. Returns `model`."""
    for module in list(model.modules()):
        materialize(module)
    return model


def materialized(model: nn.Module) -> nn.Module:
    """`model` itself when nothing in it is computed, else a copy with plain values."""
    return materialize_all(copied(model)) if any(map(computed, model.modules())) else model


def note_computed(
    model: nn.Module, paths: Collection[str], log: Callable[[str], None], keeps: Collection[str] = ()
) -> None:
    """One line for the user that names what computes weights at `paths` and will be replaced by the plain values.

    keeps  names of forms that the step carries over, so that no note is needed
    """
    gone: dict[str, list[str]] = {}
    for path in paths:
        for name, forms in computed(model.get_submodule(path)).items():
            for form in set(forms) - set(keeps):
                gone.setdefault(form, []).append(f"{path}.{name}".lstrip("."))
    if gone:
        named = "; ".join(
            f"{form} of {', '.join(names[:3])}{' ...' * (len(names) > 3)}" for form, names in gone.items()
        )
        log(f"computed weights become plain ones of the same values, which a later training moves freely: {named}")
