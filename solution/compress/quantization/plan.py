"""The decision: layer -> scheme, ranges of inputs, folded norms. On a fresh net a plan makes the same forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from solution.compress.fold_norms import fold_norms
from solution.compress.layers import WEIGHTED, channel_axis, left_alone, module_at, savings, sound_weight
from solution.compress.parametrized import computed, is_masked, keep_zeros, plain
from solution.compress.quantization.correction import Chain, cross_layer_equalize
from solution.compress.quantization.forms import (
    LEARNED,
    Codes,
    DynamicGrid,
    FixedGrid,
    Half,
    finish,
    grid_of,
    make_trainable,
    quantize_inputs,
    stored_bytes,
)
from solution.compress.quantization.schemes import DYNAMIC, SCHEMES, Scheme
from solution.contracts import InputError, Plan, copied
from solution.text import columns

Saves = dict[str, tuple[int, int]]
_FORMS = frozenset(form.__name__ for form in (Codes, Half, *LEARNED))


@dataclass(frozen=True, kw_only=True)
class QuantizePlan(Plan):
    """Which layer takes which scheme.

    schemes     {layer: name of its scheme}, in order of execution
    qat         weights stay float32 behind grids that train; else they become codes, or half precision
    folded      {norm: the layer it is folded into}
    equalized   pairs of layers brought to one range, with the channel shuffles between them
    activation_bits, ranges     of the inputs: {layer: (low, high)}, or () where each image brings its own
    other_dtype "float32", or the half precision in which all other parameters are kept
    kept        {layer or weight: why it stays in float}
    saves       {"bytes": (before, after)}, codes counted with their bits
    """

    kind: ClassVar[str] = "quantize"
    schemes: dict[str, str]
    qat: bool = False
    folded: dict[str, str] = field(default_factory=dict)
    equalized: tuple[Chain, ...] = ()
    activation_bits: int = 8
    ranges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    other_dtype: str = "float32"
    kept: dict[str, str] = field(default_factory=dict)
    saves: Saves = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ranges and not 2 <= self.activation_bits <= 8:
            raise InputError(f"inputs on a grid must have 2 to 8 bits, got activation_bits={self.activation_bits}")

    def cut(self, model: nn.Module) -> nn.Module:
        """Fold and equalize, then give every layer its form."""
        self.prepare(model)
        for path, name in self.schemes.items():
            layer: Any = _layer_at(model, path)
            scheme = SCHEMES[name]
            _must_hold(scheme, layer.weight, f"{path}.weight")
            _quantize(layer, scheme, self.qat)
        for path, ends in self.ranges.items():
            bits = self.activation_bits
            grid = FixedGrid(bits, ends[0], ends[1], self.qat) if ends else DynamicGrid(bits)
            quantize_inputs(_layer_at(model, path), grid)
        keep_in_half(model, self.other_dtype)
        return model

    def prepare(self, model: nn.Module) -> nn.Module:
        """Fold and equalize alone, in place: the net whose outputs the quantized one should give."""
        fold_norms(model, self.folded)
        cross_layer_equalize(model, self.equalized)
        return model

    def without(self, layers: tuple[str, ...], reason: str) -> QuantizePlan:
        """The same plan with `layers` left in float."""
        return dataclasses.replace(
            self,
            schemes={path: name for path, name in self.schemes.items() if path not in layers},
            ranges={path: ends for path, ends in self.ranges.items() if path not in layers},
            kept=self.kept | dict.fromkeys(layers, reason),
        )

    def finished(self) -> QuantizePlan:
        """The same plan without a training in between."""
        return dataclasses.replace(self, qat=False)

    def measured(self, model: nn.Module) -> QuantizePlan:
        """The same plan with what it saves on `model`, once all has its finished form."""
        cut = self.finished().cut(copied(model))
        return dataclasses.replace(self, saves={"bytes": (stored_bytes(model), stored_bytes(cut))})

    def __str__(self) -> str:
        table = _table(self.schemes, self.ranges)
        return "\n".join([*table, *_notes(self), *left_alone(self.kept), *savings(self.saves)])


@dataclass(frozen=True, kw_only=True)
class ConvertPlan(Plan):
    """Which trained grids become codes. `schemes`, `folded`, `other_dtype` and `saves` as in `QuantizePlan`."""

    kind: ClassVar[str] = "convert"
    schemes: dict[str, str]
    folded: dict[str, str] = field(default_factory=dict)
    other_dtype: str = "float32"
    saves: Saves = field(default_factory=dict)

    def cut(self, model: nn.Module) -> nn.Module:
        """Weights on their grids become codes with the very same values, but for a folded norm's factor."""
        steps = {}
        for path in self.schemes:
            module = module_at(model, path)
            grid = grid_of(module)
            if grid is None:
                raise InputError(f"this plan was made for another net: {path} has no grid that trains")
            steps[path] = grid.step(sound_weight(path, module))
            plain(module)
        factors = fold_norms(model, self.folded)
        for path, name in self.schemes.items():
            module = model.get_submodule(path)
            scale = steps[path] * factors[path] if path in factors else steps[path]
            finish(module, "weight", Codes(SCHEMES[name], channel_axis(module), scale))
        keep_in_half(model, self.other_dtype)
        return model

    def __str__(self) -> str:
        return "\n".join([*_table(self.schemes, {}), *savings(self.saves)])


def keep_in_half(model: nn.Module, name: str) -> None:
    """Keep every float32 parameter that is not yet in another form in half precision; "float32" changes nothing.

    A tensor that half precision cannot hold (beyond 65504 in float16) makes an `InputError`.
    """
    if name == "float32":
        return
    for path, module in list(model.named_modules()):
        if {"parametrizations", "input_grid"} & set(path.split(".")):
            continue
        for place, tensor in list(module.named_parameters(path, recurse=False)):
            if tensor.dtype is torch.float32:
                _must_hold(SCHEMES[name], tensor, place)
                finish(module, place.rpartition(".")[2], Half(name))


def _must_hold(scheme: Scheme, tensor: Tensor, place: str) -> None:
    if not scheme.holds(tensor):
        raise InputError(
            f"{place} holds NaN, or numbers beyond {scheme.name}: use a wider type (bfloat16, float32), or load sound "
            "weights first"
        )


def _layer_at(model: nn.Module, path: str) -> nn.Module:
    module = module_at(model, path)
    if not isinstance(module, WEIGHTED):
        raise InputError(f"this plan was made for another net: {path} is a {type(module).__name__}")
    return module


def _quantize(module: nn.Module, scheme: Scheme, trains: bool) -> None:
    """Masks and what is parametrized stay before a grid that trains; a finished form is made of what they leave."""
    forms = computed(module).get("weight", ())
    by_hook, masked = forms and not parametrize.is_parametrized(module, "weight"), is_masked(module)
    if not trains or by_hook or not _FORMS.isdisjoint(forms):
        plain(module)
    if trains and by_hook and masked:
        keep_zeros(module)
    if trains:
        make_trainable(module, scheme, channel_axis(module))
    elif scheme.dtype is not None:
        finish(module, "weight", Half(scheme.name))
    else:
        finish(module, "weight", Codes(scheme, channel_axis(module)))


def _table(schemes: Mapping[str, str], ranges: Mapping[str, tuple[float, ...]]) -> list[str]:
    inputs = {path: "{:.4g} to {:.4g}".format(*ends) if ends else DYNAMIC for path, ends in ranges.items()}
    rows = [(path, name, inputs.get(path, "float")) for path, name in schemes.items()]
    return columns([("layer", "weights", "inputs"), *rows])


def _notes(plan: QuantizePlan) -> list[str]:
    notes = {
        f"norms folded into the layers before them: {len(plan.folded)}": plan.folded,
        f"pairs of layers equalized: {len(plan.equalized)}": plan.equalized,
        f"all other parameters: {plan.other_dtype}": plan.other_dtype != "float32",
    }
    return [note for note, wanted in notes.items() if wanted]
