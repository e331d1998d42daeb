"""Quantization: fewer bits for every weight, in one step after training or with a training in between.

After training:     fw.Quantize(scheme="int8")                       codes at once
Inputs, static:     fw.Quantize(scheme="int8", activations=8)        ranges from calibration images
Inputs, dynamic:    fw.Quantize(scheme="int8", activations=8, observer="dynamic")
With training:      fw.Quantize(scheme="int4", qat=True), fw.Train(...), fw.Convert()
A mix under budget: fw.Quantize(scheme="int8", lower=("int4", "int2"), bytes="20%")

Weights lie on a grid per output channel, inputs (`activations`) on one per layer. A finished weight is stored as small
integers and scales (`quantization.forms`). Running a net in integers is the runtimes' work: see `solution.export`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from solution.budget import Budget
from solution.compress.coupling.inputs import AnyNetStep
from solution.compress.fold_norms import Wiring
from solution.compress.layers import find_layers
from solution.compress.parametrized import MASKS, note_computed
from solution.compress.quantization.correction import chains_of, correct_biases
from solution.compress.quantization.forms import grid_of, stored_bytes
from solution.compress.quantization.mixed import GROUPS, Mix, first_within, last_good, sensitivities, spare, steps_down
from solution.compress.quantization.plan import ConvertPlan, QuantizePlan
from solution.compress.quantization.schemes import DYNAMIC, HALVES, OBSERVERS, ranges, scheme_called
from solution.contracts import Batches, InputError, Plan, StepContext, copied
from solution.evaluate.classify import classify, mean_loss, predictor
from solution.graph import images_for

_OTHER_DTYPES = ("float32", *HALVES)


@dataclass(frozen=True, kw_only=True)
class Quantize(AnyNetStep):
    """Give the weights of convolutions and linear layers fewer bits.

    scheme       float16, bfloat16, int8 ... int2, binary
    lower        schemes that layers may take instead, least sensitive first, under one budget:
    bytes        what the net may take at most (`Budget`: "20%" of the float net's bytes, "64 KiB")
    f1_drop      or: macro F1 that may be lost on the dev split
    qat          float weights behind grids that train (LSQ; signs for binary); `Train` and `Convert` should follow
    activations  bits of the layers' inputs, 2 to 8; 0 leaves them in float
    observer     how the range of inputs follows from calibration images: minmax, percentile, mse, entropy (static);
                 or dynamic: each image brings its own, at every layer. That needs no calibration and cuts nothing off,
                 but a runtime must look for the range at every call, where a fixed one costs nothing
    images       calibration images to use; fewer are logged
    fold_norms   batch norms go into the convolution before them
    cross_layer_equalize  bring channels of neighboring layers to one range; needs fold_norms
    correct_bias undo the mean error of each layer, measured on calibration images, where such are given
    other_dtype  float32, float16 or bfloat16: how all other parameters are kept
    spare        groups (first, last, depthwise) to leave in float where that is measured to be better
    protect      glob patterns of layers that stay in float
    """

    scheme: str = "int8"
    lower: tuple[str, ...] = ()
    bytes: str | int | None = None
    f1_drop: float | None = None
    qat: bool = False
    activations: int = 0
    observer: str = "mse"
    images: int = 256
    fold_norms: bool = False
    cross_layer_equalize: bool = False
    correct_bias: bool = True
    other_dtype: str = "float32"
    spare: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bits = [scheme_called(name).bits for name in (self.scheme, *self.lower)]
        if sorted(set(bits), reverse=True) != bits:
            raise InputError(f"lower must name ever fewer bits than {self.scheme}, got {', '.join(self.lower)}")
        budgets = [value for value in (self.bytes, self.f1_drop) if value is not None]
        if len(budgets) != bool(self.lower):
            raise InputError(f"lower, and one of bytes and f1_drop, go together, got {self._budget()}")
        if self.bytes is not None:
            Budget.of(self.bytes, "bytes")
        if self.f1_drop is not None and self.f1_drop <= 0:
            raise InputError(f"f1_drop must be positive, got {self.f1_drop}")
        if self.activations and not 2 <= self.activations <= 8:
            raise InputError(f"activations must be 2 to 8 bits, or 0 for float, got {self.activations}")
        if self.observer == DYNAMIC and not self.activations:
            raise InputError("observer='dynamic' is for inputs, which stay in float: give activations=8")
        if self.images < 1:
            raise InputError(f"images must be at least 1, got {self.images}")
        if self.cross_layer_equalize and not self.fold_norms:
            raise InputError("cross_layer_equalize needs fold_norms=True: a norm lies between two layers")
        self._check_names()
        self._check_qat(max(bits))

    def _budget(self) -> str:
        return f"lower={self.lower}, bytes={self.bytes}, f1_drop={self.f1_drop}"

    def _check_names(self) -> None:
        for name, known in (("observer", (*OBSERVERS, DYNAMIC)), ("other_dtype", _OTHER_DTYPES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        unknown = [group for group in self.spare if group not in GROUPS]
        if unknown:
            raise InputError(f"spare may name {', '.join(GROUPS)}, got {unknown[0]!r}")

    def _check_qat(self, bits: int) -> None:
        if self.qat and bits > 8:
            raise InputError(f"qat is for grids of 8 bits and fewer, got {self.scheme}")
        if self.qat and self.other_dtype != "float32":
            raise InputError(f"a training needs float32: give other_dtype={self.other_dtype!r} to Convert instead")

    @property
    def needs(self) -> tuple[str, ...]:
        """Calibration pictures for fixed ranges of inputs; dev for what is chosen by loss."""
        return ("calibration",) * self._observes + ("dev",) * bool(self.spare or self.lower)

    @property
    def currency(self) -> str | None:  # type: ignore[override]  # it depends on `qat`
        """Bytes; with `qat` the float weights stay until `Convert`."""
        return None if self.qat else "bytes"

    def decide(self, model: nn.Module, context: StepContext) -> QuantizePlan:
        """Which layer takes which scheme. `InputError` when there is none to quantize, or a budget cannot be met."""
        layers = find_layers(model, context.example, self.protect)
        plan = QuantizePlan(
            schemes=dict.fromkeys(layers.paths, self.scheme),
            qat=self.qat,
            folded=Wiring(model).norms() if self.fold_norms else {},
            activation_bits=self.activations,
            other_dtype=self.other_dtype,
            kept=layers.kept,
        )
        plan = self._fitting(self._with_chains(plan, model), model)
        if not plan.schemes:
            raise InputError(f"nothing can be quantized: {_reasons(plan)}")
        self._note_if_few(context)
        plan = self._spared(self._with_ranges(plan, model, context), model, context)
        if self.lower:
            plan = dataclasses.replace(plan, schemes=self._mix(plan, model, context))
        self._note(plan, model, context)
        return plan.measured(model)

    def _note(self, plan: QuantizePlan, model: nn.Module, context: StepContext) -> None:
        """Say what computes weights and goes. What is parametrized stays before a grid that trains."""
        paths = {
            *plan.schemes,
            *plan.folded,
            *plan.folded.values(),
            *(path for pair in plan.equalized for path in pair[:2]),
        }
        if self.qat:
            stay = {path for path in plan.schemes if parametrize.is_parametrized(model.get_submodule(path), "weight")}
            paths -= stay - {*plan.folded.values()}
        note_computed(model, sorted(paths), context.log, keeps=MASKS)

    def apply(self, plan: Plan, model: nn.Module, context: StepContext) -> nn.Module:
        """Apply, and correct the biases."""
        assert isinstance(plan, QuantizePlan)  # as this step made it
        return self.mended(plan.apply(model), plan, model, context)

    def mended(self, cut: nn.Module, plan: QuantizePlan, model: nn.Module, context: StepContext) -> nn.Module:
        """`cut`, made from `model` by `plan`, with biases corrected on calibration images if any, in place."""
        if not self._corrects or context.calibration is None:
            return cut
        behind = {layer: norm for norm, layer in _norms_of(model).items() if norm not in plan.folded}
        places = {path: path for path in plan.schemes if cut.get_submodule(path).bias is not None}
        places = {path: behind[path] for path in plan.schemes if path in behind} | places
        exact = plan.prepare(copied(model))
        correct_biases(cut, exact, places, list(_first(context.calibration, self.images)))
        return cut

    def _with_chains(self, plan: QuantizePlan, model: nn.Module) -> QuantizePlan:
        if not self.cross_layer_equalize:
            return plan
        folded = plan.prepare(copied(model))
        chains = [chain for chain in chains_of(Wiring(folded)) if {*chain[:2]} <= plan.schemes.keys()]
        return dataclasses.replace(plan, equalized=tuple(chains))

    def _fitting(self, plan: QuantizePlan, model: nn.Module) -> QuantizePlan:
        """`plan` without layers whose weights, with what is folded into them, the scheme cannot hold."""
        exact, scheme = plan.prepare(copied(model)), scheme_called(self.scheme)
        beyond = tuple(
            path for path in plan.schemes if not scheme.holds(cast(Tensor, exact.get_submodule(path).weight))
        )
        return plan.without(beyond, f"its weight holds numbers beyond {self.scheme}")

    def _with_ranges(self, plan: QuantizePlan, model: nn.Module, context: StepContext) -> QuantizePlan:
        if not self.activations:
            return plan
        if self.observer == DYNAMIC:
            return dataclasses.replace(plan, ranges=dict.fromkeys(plan.schemes, ()))
        images = list(_first(context.need("calibration", "quantizing activations"), self.images))
        exact = plan.prepare(copied(model))
        found = ranges(exact, plan.schemes, images, self.observer, self.activations)
        return dataclasses.replace(plan, ranges=dict(found))

    def _spared(self, plan: QuantizePlan, model: nn.Module, context: StepContext) -> QuantizePlan:
        if not self.spare:
            return plan
        dev = list(context.need("dev", "spare"))

        def loss_of(plan: QuantizePlan) -> float:
            return mean_loss(self._shipped(plan, model, context), dev)

        return spare(plan, model, self.spare, loss_of, context.log)

    @property
    def _observes(self) -> bool:
        return self.activations > 0 and self.observer != DYNAMIC

    @property
    def _corrects(self) -> bool:
        return self.correct_bias and not self.qat

    def _note_if_few(self, context: StepContext) -> None:
        if context.calibration is None or not (self._observes or self._corrects):
            return
        count = sum(len(images) for images in _first(context.calibration, self.images))
        if not count:
            raise InputError("there are no calibration images to quantize with")
        if count < self.images:
            context.log(f"images={self.images}, but there are {count} calibration images: these are used")

    def _mix(self, plan: QuantizePlan, model: nn.Module, context: StepContext) -> Mix:
        """A scheme for each layer within the budget; what `spare` left in float stays so."""
        dev = list(context.need("dev", "mixed precision"))
        exact = plan.prepare(copied(model))
        names, paths = (self.scheme, *self.lower), tuple(plan.schemes)
        harm = sensitivities(exact, paths, names, [images for images, _ in dev])
        steps = steps_down(exact, names, harm, paths)
        if self.bytes is not None:
            before, after = plan.measured(model).saves["bytes"]
            return first_within(steps, after - round(Budget.of(self.bytes, "bytes").limit(before)))
        least = _f1(model, dev) - (self.f1_drop or 0.0)
        return last_good(steps, lambda mix: self._f1_of(mix, plan, model, context) >= least)

    def _shipped(self, plan: QuantizePlan, model: nn.Module, context: StepContext) -> nn.Module:
        """The net that `plan` makes, with all that is mended before it ships, as if no training came in between."""
        cut = plan.finished().cut(copied(model))
        return dataclasses.replace(self, qat=False).mended(cut, plan, model, context).eval()

    def _f1_of(self, mix: Mix, plan: QuantizePlan, model: nn.Module, context: StepContext) -> float:
        f1 = _f1(
            self._shipped(dataclasses.replace(plan, schemes=mix), model, context),
            context.need("dev", "mixed precision"),
        )
        context.log(f"{sum(name != self.scheme for name in mix.values())} layers lower: F1 {f1:.4f} on the dev split")
        return f1


@dataclass(frozen=True, kw_only=True)
class Convert(AnyNetStep):
    """Weights behind grids that have trained become codes: the same values, without the float weights.

    fold_norms  batch norms go into the convolution before them: a norm's factor goes into the scales
    other_dtype float32, float16 or bfloat16: how all other parameters are kept
    """

    currency: ClassVar[str | None] = "bytes"
    fold_norms: bool = False
    other_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.other_dtype not in _OTHER_DTYPES:
            raise InputError(f"other_dtype must be one of {', '.join(_OTHER_DTYPES)}, got {self.other_dtype!r}")

    def decide(self, model: nn.Module, context: StepContext) -> ConvertPlan:
        """Which grids become codes. `InputError` when there is none."""
        grids = {path: grid_of(module) for path, module in model.named_modules()}
        schemes = {path: grid.scheme.name for path, grid in grids.items() if grid is not None}
        if not schemes:
            raise InputError("there is nothing to convert: no weight has a grid that trains; Quantize(qat=True) first")
        folded = Wiring(model).norms() if self.fold_norms else {}
        plan = ConvertPlan(schemes=schemes, folded=folded, other_dtype=self.other_dtype)
        saves = {"bytes": (stored_bytes(model), stored_bytes(plan.cut(copied(model))))}
        return dataclasses.replace(plan, saves=saves)


def _first(batches: Batches, count: int) -> Iterator[Tensor]:
    """The first `count` images of `batches`, in batches."""
    for images, _ in batches:
        yield images[:count]
        count -= len(images)
        if count <= 0:
            return


def _norms_of(model: nn.Module) -> dict[str, str]:
    try:
        return Wiring(model).norms()
    except InputError:  # then only layers with a bias of their own can be corrected
        return {}


def _f1(model: nn.Module, batches: Batches) -> float:
    predict = predictor(model)
    return classify(lambda images: predict(images_for(model, images)), batches).f1


def _reasons(plan: QuantizePlan) -> str:
    reasons = sorted(set(plan.kept.values())) or ["the net has no convolution and no linear layer"]
    return "; ".join(itertools.islice(reasons, 4))
