"""Every step, plan, model and export format by its name, spelled out once.

A step's name is its word in the shell; a plan's kind and a model's name stand in files. `tests/test_registry.py` holds
these against all subclasses, so that none can be forgotten.
"""

from __future__ import annotations

import dataclasses
import shlex
import typing
from typing import Any

from solution.compress.channels.gradual import PruneGradually
from solution.compress.channels.group_penalty import GroupPenalty
from solution.compress.channels.step import PruneChannels
from solution.compress.cluster import Cluster, ClusterPlan
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.decompose import Decompose, DecomposePlan
from solution.compress.fold_norms import FoldNorms, FoldPlan
from solution.compress.prune_layers import LayerPlan, PruneLayers
from solution.compress.prune_weights import PruneWeights, SparsityPlan
from solution.compress.quantization.plan import ConvertPlan, QuantizePlan
from solution.compress.quantize import Convert, Quantize
from solution.contracts import InputError, ModelSettings, Plan, Step
from solution.formats.base import Format
from solution.formats.executorch import EXECUTORCH
from solution.formats.litert import LITERT
from solution.formats.micro import MICRO
from solution.formats.onnx import ONNX
from solution.formats.openvino import OPENVINO
from solution.formats.pt2 import PT2
from solution.models.cifar_resnet import CifarResNet
from solution.models.classifiers import Classifier, HeadPlan
from solution.models.shufflenet import ShuffleNet
from solution.models.ssdlite import SsdLite
from solution.models.yolo import Yolo
from solution.settings import parse
from solution.text import did_you_mean
from solution.train.distillation import Assist, AssistPlan, Distill
from solution.train.pretraining import Autoencode, Pretrain, Start, Unchanged
from solution.train.recover import Recover
from solution.train.step import Train, TrainDetector

STEPS: dict[str, type[Step]] = {
    "prune_channels": PruneChannels,
    "prune_gradually": PruneGradually,
    "prune_layers": PruneLayers,
    "prune_weights": PruneWeights,
    "decompose": Decompose,
    "cluster": Cluster,
    "quantize": Quantize,
    "convert": Convert,
    "fold_norms": FoldNorms,
    "group_penalty": GroupPenalty,
    "train": Train,
    "train_detector": TrainDetector,
    "distill": Distill,
    "recover": Recover,
    "assist": Assist,
    "pretrain": Pretrain,
    "autoencode": Autoencode,
    "start": Start,
    "unchanged": Unchanged,
}

PLANS: dict[str, type[Plan]] = {
    plan.kind: plan
    for plan in (
        LayerPlan,
        AssistPlan,
        ChannelPlan,
        SparsityPlan,
        DecomposePlan,
        ClusterPlan,
        QuantizePlan,
        ConvertPlan,
        FoldPlan,
        HeadPlan,
    )
}

MODELS: dict[str, type[ModelSettings]] = {
    "shufflenet": ShuffleNet,
    "classifier": Classifier,
    "cifar_resnet": CifarResNet,
    "yolo": Yolo,
    "ssdlite": SsdLite,
}

FORMATS: dict[str, Format] = {format.name: format for format in (ONNX, OPENVINO, PT2, LITERT, MICRO, EXECUTORCH)}


def step_from(text: str) -> Step:
    """The step that `text` names, with its settings: "prune_layers units=2,5,2 ranking=last".

    `InputError` that lists the right names for an unknown step or field, and the type wanted for a wrong value.
    """
    try:
        name, *settings = shlex.split(text) or [""]
    except ValueError as error:
        raise InputError(f"step {text!r} cannot be read: {error}") from error
    if name not in STEPS:
        raise InputError(f"there is no step {name!r}{did_you_mean(name, STEPS)}; there are: {', '.join(STEPS)}")
    kind, changes = STEPS[name], {}
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"step {name} takes FIELD=VALUE, got {setting!r}; its fields are: {', '.join(types)}")
        if field not in types:
            raise InputError(f"{name} has no field {field!r}{did_you_mean(field, types)}; it has: {', '.join(types)}")
        try:
            changes[field] = parse(value, typing.get_type_hints(kind)[field])
        except TypeError as error:
            raise InputError(f"{name}.{field} takes {types[field]}, got {value!r}") from error
    missing = [field.name for field in dataclasses.fields(kind) if _is_required(field) and field.name not in changes]
    if missing:
        raise InputError(f'{name} needs {", ".join(missing)}: --step "{name} {missing[0]}=..."')
    return kind(**changes)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
