"""The shapes that all layers share: Step, Plan, StepContext, Recipe, Row.

A step is a value that is called: ``smaller = step(model, context)``. It never changes its input. A structural step
decides first (``plan``), then cuts (``Plan.apply``). Every module remembers the plans that made it, whoever built it
(`plans_of`), so that a checkpoint can replay them on a fresh net and fill in the weights.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from solution.batches import tidied
from solution.copying import copied
from solution.text import InputError

if TYPE_CHECKING:  # a message about bad input must not wait seconds for PyTorch
    from torch import Tensor, nn

_SPEC, _PLANS, _CODE = "_featherweight_spec", "_featherweight_plans", "_featherweight_code"
CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"
"""What a net may be for: one class for a picture, boxes with a class each, or a class for each pixel."""

Batches: TypeAlias = "Iterable[tuple[Tensor, Tensor]]"
"""Batches of (images (B, C, H, W) normalized float32, labels (B,) int64)."""

Example: TypeAlias = "Tensor | tuple[Any, ...] | dict[str, Any]"
"""Inputs of one forward: a tensor, a tuple of positional or a dict of keyword arguments."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a step may use besides the model. Data-free steps need `example` alone.

    The val split is not here: dev decides, val judges, and no step may look at val.

    example      one normalized input batch (B, C, H, W), on the CPU
    train        training batches, augmented: what a net learns from
    dev          batches of a part of train that decide: which epoch, which layer, which setting
    calibration  a few hundred training images without augmentation
                 (each any loader of tuples or dictionaries, see `solution.batches`)
    classes      names, in the order of the outputs
    counts       training images of each class
    original     the net before the first step, whose outputs a cut one may be trained to give
    load         a checkpoint's path -> its net and header: for steps that learn from a finished net
    folder       where a long step keeps its resumable state and its logs; None keeps nothing
    resume       go on from the state in `folder` instead of starting afresh
    log          takes one line for the user
    """

    example: Any
    train: Batches | None = None
    dev: Batches | None = None
    calibration: Batches | None = None
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    original: nn.Module | None = None
    load: Callable[[Path], tuple[nn.Module, Any]] | None = None
    device: str = "cpu"
    seed: int = 0
    folder: Path | None = None
    resume: bool = False
    log: Callable[[str], None] = print

    def __post_init__(self) -> None:
        for name in ("train", "dev", "calibration"):
            object.__setattr__(self, name, tidied(getattr(self, name), len(self.classes), self.log))

    @classmethod
    def of(cls, context: StepContext | Example) -> StepContext:
        """`context` itself, or one that holds nothing but this example: a tensor, or a tuple or dict of tensors."""
        return context if isinstance(context, StepContext) else cls(example=context)

    def need(self, name: str, step: str) -> Batches:
        """The loader called `name`, or an `InputError` that names the step which cannot do without it."""
        loader = getattr(self, name)
        if loader is None:
            raise InputError(
                f"{step} needs {name} batches, and none were given: pass StepContext({name}=...), or --data PATH in "
                "the shell"
            )
        return loader


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One method with its settings. Subclasses are frozen, keyword-only dataclasses.

    currency: the `Row` field that this step promises not to raise ("macs", "params", "bytes"), or None.
    """

    currency: ClassVar[str | None] = None

    @property
    def requires(self) -> dict[str, tuple[str, ...]]:
        """{setting: the finished nets that it names}: checkpoints, folders of runs, earlier stages."""
        return {}

    @property
    def needs(self) -> tuple[str, ...]:
        """The batches of `StepContext` that it cannot do without, as far as its settings tell."""
        return ()

    @property
    def uses_train_data(self) -> bool:
        """Whether it fits weights to pictures of train, so that quality there means little."""
        return False

    def __call__(self, model: nn.Module, context: StepContext | Example) -> nn.Module:
        """A new model; `model` itself is left untouched. An example stands for a context that holds nothing else."""
        return self.run(model, StepContext.of(context))

    @abstractmethod
    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """What the step does when it is called: a new model."""

    @abstractmethod
    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """A net that costs what the step's would, made without training and without real pictures: `search` wants to
        know what a net will cost before it is trained. Its weights mean nothing.
        """


@dataclass(frozen=True, kw_only=True)
class StructuralStep(Step):
    """A step that changes the shape of a net: it decides, then cuts.

    recoverable  whether what a cut costs in quality can be trained back without labels (`Recover`)
    foreseen     whether its `cost_only` takes a moment, so that a run tries it before hours of training
    """

    recoverable: ClassVar[bool] = False
    foreseen: ClassVar[bool] = False

    def plan(self, model: nn.Module, context: StepContext | Example) -> Plan:
        """What would be cut. Raises `InputError` when that is nothing."""
        return self.decide(model, StepContext.of(context))

    @abstractmethod
    def decide(self, model: nn.Module, context: StepContext) -> Plan:
        """What `plan` returns."""

    def apply(self, plan: Plan, model: nn.Module, context: StepContext) -> nn.Module:
        """`plan`, which this step made for `model`, carried out. A step may mend the cut net with what `context` has:
        statistics of its norms, biases; no plan holds these, so they travel with the weights.
        """
        return plan.apply(model)

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """Decide, then apply."""
        return self.apply(self.decide(model, context), model, context)

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The cut itself."""
        return self.run(model, context)


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """A decision as a plain value: fields are numbers, strings, tuples and dictionaries of these.

    ``str(plan)`` is its table. ``from_fields(plan.to_fields())`` equals the plan after a trip through JSON.
    """

    kind: ClassVar[str]

    def apply(self, model: nn.Module) -> nn.Module:
        """A cut copy of `model` that remembers this plan. `InputError` when the plan was made for another net."""
        cut = self.cut(copied(model))
        return remember(cut, spec_of(model), (*plans_of(model), self))

    @abstractmethod
    def cut(self, model: nn.Module) -> nn.Module:
        """Cut `model` in place (it is already a copy) and return it."""

    def _repr_html_(self) -> str:
        """The table, as notebooks show it."""
        return f"<pre>{escape(str(self))}</pre>"

    def to_fields(self) -> dict[str, Any]:
        """The fields and the kind, ready for `json.dumps`."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Plan:
        """The plan again. JSON's lists come back as tuples."""
        return cls(**{name: _tuples(value) for name, value in fields.items() if name != "kind"})


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value


class ModelSettings(Protocol):
    """A frozen dataclass that builds a net: ``ShuffleNet(units=(4, 8, 4)).build(num_classes=9)``."""

    def build(self, num_classes: int) -> nn.Module:
        """A freshly initialized net with `num_classes` outputs that remembers its `ModelSpec`."""


def task_of(settings: ModelSettings) -> str:
    """What nets of these settings are for: their ``task``, or classification when they name none."""
    return getattr(settings, "task", CLASSIFICATION)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """How to build a net of this project again, but for its weights and the plans applied since."""

    settings: ModelSettings
    num_classes: int

    def build(self) -> nn.Module:
        """A freshly initialized net."""
        return self.settings.build(self.num_classes)


def remember(model: nn.Module, spec: ModelSpec | None, plans: tuple[Plan, ...] = ()) -> nn.Module:
    """Note in `model` how it was built, if this project built it, and the plans applied since. Returns the model.

    Copies of the model keep the note.
    """
    object.__setattr__(model, _SPEC, spec)
    object.__setattr__(model, _PLANS, plans)
    return model


def name_code(model: nn.Module, code: str) -> nn.Module:
    """Note in `model` how MODEL names the code that builds it. Returns the model."""
    object.__setattr__(model, _CODE, code)
    return model


def code_of(model: nn.Module) -> str:
    """How MODEL names the code that builds `model`, "my_model.py:Net"; else its class, "module:Class"."""
    return getattr(model, _CODE, f"{type(model).__module__}:{type(model).__qualname__}")


def spec_of(model: nn.Module) -> ModelSpec | None:
    """How to build the net, or None for a module that was not built by `solution.models`."""
    return getattr(model, _SPEC, None)


def plans_of(model: nn.Module) -> tuple[Plan, ...]:
    """The plans applied to a net since it was built, in order, whoever built it."""
    return getattr(model, _PLANS, ())


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A named step of a recipe. It goes on from the stage before it, or from the one named in `after`.

    `after=Stage.NEW` starts from a freshly initialized net; `fresh` from a net of the shape that the earlier stage
    left, with new weights; `model` from a fresh net of its own instead of the recipe's, such as a teacher.
    No stage is called `Stage.EVERY`: it addresses a setting of all stages.

    size  side of its pictures in pixels, for it and the stages that go on from it; None takes theirs, or the data's
    """

    NEW: ClassVar[str] = "new"
    EVERY: ClassVar[str] = "every"
    name: str
    step: Step
    after: str | None = None
    fresh: bool = False
    model: ModelSettings | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Data, model, stages: everything that a run needs, as one value.

    before, after  the stages compared
    thorough       rows also hold what takes time to measure: bytes packed, and milliseconds, processor time and memory
                   of one image
    exports        forms that Before and After are exported to at the end, such as "onnxruntime", "openvino int8": their
                   rows then hold all that `thorough` means, and bytes, quality and milliseconds of the exported files
    score          rows, screen and page show the competition's score
    report         makes the page's own part for this recipe, when it has tables and drawings of its own
    """

    name: str
    data: Any
    model: ModelSettings
    stages: tuple[Stage, ...]
    before: str
    after: str
    seed: int = 0
    thorough: bool = False
    exports: tuple[str, ...] = ()
    score: bool = False
    report: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        taken = {"data", "model", Stage.NEW, Stage.EVERY}
        for position, stage in enumerate(self.stages):
            if stage.name in names[:position] or stage.name in taken:
                raise InputError(f"recipe {self.name}: the stage name {stage.name!r} is taken; names must be unique")
            if stage.after not in (None, Stage.NEW, *names[:position]):
                raise InputError(
                    f"recipe {self.name}: {stage.name} goes on after {stage.after!r}, not an earlier stage"
                )
            if stage.model is not None and (stage.fresh or stage.after not in (None, Stage.NEW)):
                raise InputError(
                    f"recipe {self.name}: {stage.name} brings a model of its own, so it cannot go on after another"
                )
            if stage.fresh and self.source(stage.name) == Stage.NEW:
                raise InputError(f"recipe {self.name}: {stage.name} is fresh, but no earlier stage gives its shape")
            if stage.size is not None:
                dataclasses.replace(self.data, size=stage.size)  # refuses sizes that no stage should begin with
        for role in (self.before, self.after):
            if role not in names:
                raise InputError(f"recipe {self.name}: no stage is called {role!r}; there are {', '.join(names)}")

    def stage(self, name: str) -> Stage:
        """The stage called `name`."""
        return next(stage for stage in self.stages if stage.name == name)

    def source(self, name: str) -> str:
        """The name of the stage that `name` goes on from, or `Stage.NEW`."""
        names = [stage.name for stage in self.stages]
        position = names.index(name)
        stage = self.stages[position]
        if stage.after is not None or stage.model is not None:
            return stage.after or Stage.NEW
        return names[position - 1] if position else Stage.NEW

    def size_of(self, name: str) -> int:
        """Side in pixels of the pictures that the stage called `name` sees."""
        while name != Stage.NEW:
            if (size := self.stage(name).size) is not None:
                return size
            name = self.source(name)
        return self.data.size


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one step cost and gained. Deltas are computed where they are shown, never stored; None is "not measured".

    macs             multiply-accumulates of one image in the competition's convention (ptflops hooks)
    macs_dispatched  the same at the dispatcher: every convolution and matrix product that really ran
    ram              bytes of memory that one image in int8 takes on a microcontroller, estimated
    sparsity         percent of weights that are exactly zero
    quality          {"f1": macro F1, "accuracy": ...}, fractions of 1, on the val split; of a detector {"precision",
                     "recall", "map50", "map"}, and {"train_map": ...} on training pictures that it did not learn from
    score            the competition's, lower is better; None when the audit refuses the net
    bytes            of the checkpoint; packed_bytes: of the packed file
    latency_ms       {runtime: median of one image}; "openvino" is fp32, others are named: "openvino int8"
    exported         {runtime: {"bytes": ..., "memory_bytes": ..., and the quality of the exported file, run by that
                     runtime, as in quality}}
    left_out         {runtime: why the step has no exported file for it}, of those that the recipe names
    cpu_ms           processor time of one image, of all threads, in PyTorch eager
    memory_bytes     most that a fresh process held above what it had before it loaded the net and answered one image
    seconds          wall time of the step
    hardware         of the training
    timed_on         of latency_ms (but a GPU's), cpu_ms and memory_bytes; "" means the same
    """

    step: str
    macs: int
    macs_dispatched: int | None = None
    params: int
    bytes: int
    ram: int | None = None
    sparsity: float = 0.0
    quality: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    packed_bytes: int | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    exported: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    cpu_ms: float | None = None
    memory_bytes: int | None = None
    seconds: float = 0.0
    seed: int = 0
    commit: str = ""
    hardware: str = ""
    timed_on: str = ""

    def _repr_html_(self) -> str:
        """Field by field, as notebooks show it; what was not measured is left out."""
        fields = [(name, value) for name, value in dataclasses.asdict(self).items() if value not in (None, {}, "")]
        lines = "".join(f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in fields)
        return f"<table>{lines}</table>"
