"""A checkpoint: weights + how to build the net, in one `.safetensors` file that is never unpickled.

The metadata hold the architecture's settings, the plans applied since, classes, normalization, the recipe and its
figures. Loading builds the net, replays the plans and fills in the weights.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution.compress.plans import PLANS
from solution.contracts import InputError, InputSpec, ModelSettings, ModelSpec, origin_of, remember
from solution.models.bounded import Bounded
from solution.models.cifar_resnet import CifarResNet
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet
from solution.models.ssdlite import SsdLite
from solution.models.yolo import Yolo
from solution.runtime import check_readable, written_whole

VERSION = 1
MODELS: dict[str, type[ModelSettings]] = {
    "shufflenet": ShuffleNet,
    "classifier": Classifier,
    "cifar_resnet": CifarResNet,
    "yolo": Yolo,
    "ssdlite": SsdLite,
}


_FETCHED = ("pretrained", "weights")
"""Settings that start a net from weights of elsewhere: no file of ours asks for them, for it has weights."""
_SLACK_BYTES = 1 << 30
_MOST_RATIO = 1024
"""A cut net's file may be small however large the net was before: as large as VGG's, or so many times the file."""


@dataclass(frozen=True, kw_only=True)
class Header(InputSpec):
    """All that a checkpoint says besides its weights.

    origin   how to build the net
    recipe   {"name": ..., "seed": ..., "stage": ..., "settings": {address: value}}
    figures  the row that was measured when it was written
    """

    origin: ModelSpec
    recipe: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes and len(self.classes) != self.origin.num_classes:
            raise InputError(f"{len(self.classes)} classes are named, and the net has {self.origin.num_classes}")

    def to_fields(self) -> dict[str, Any]:
        """All of it, ready for `json.dumps`."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        origin = fields.pop("origin")
        kind = next(name for name, settings in MODELS.items() if isinstance(origin.settings, settings))
        net = {
            "kind": kind,
            "settings": dataclasses.asdict(origin.settings),
            "num_classes": origin.num_classes,
            "plans": [plan.to_fields() for plan in origin.plans],
        }
        return {"version": VERSION, "net": net, **fields}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], path: Path) -> Header:
        """The header again. `InputError` when it is of a newer project, or broken; `path` is the file that has it."""
        try:
            return cls._read(fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except Exception as error:  # whatever fields of another kind make of those that read them
            raise InputError(f"{path} has a broken header ({error!r}); copy or make it again") from error

    @classmethod
    def _read(cls, fields: Mapping[str, Any]) -> Header:
        if fields["version"] > VERSION:
            raise InputError(f"its header has version {fields['version']}, newer than {VERSION}: update the project")
        net = fields["net"]
        settings = _known(MODELS, net["kind"])(**{name: _tuple(value) for name, value in net["settings"].items()})
        if any(getattr(settings, name, None) for name in _FETCHED):
            raise InputError(f"its header asks for weights of elsewhere ({settings}); copy or make it again")
        plans = tuple(_known(PLANS, plan["kind"]).from_fields(plan) for plan in net["plans"])
        origin = ModelSpec(settings=settings, num_classes=net["num_classes"], plans=plans)
        rest = {name: _tuple(value) for name, value in fields.items() if name not in ("version", "net")}
        return cls(origin=origin, **rest)


def save(path: Path, model: nn.Module, header: Header) -> None:
    """Write `model` and `header` to `path`, whole or not at all."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(state, temporary, metadata={"featherweight": json.dumps(header.to_fields())})


def load(path: Path) -> tuple[nn.Module, Header]:
    """The net, in evaluation mode, and its header. `InputError` for a file that is not a whole checkpoint of ours."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); copy or train it again") from error
    return filled(rebuilt(header.origin, path), state, path).eval(), header


def read_header(path: Path) -> Header:
    """The header alone: reads the first kilobytes, no weights."""
    fields = _metadata(Path(path)).get("featherweight")
    if fields is None:
        raise InputError(f"{path} holds weights, but not how to build their net: it was not written by this project")
    try:
        said = json.loads(fields)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} has a broken header ({error!r}); copy or make it again") from error
    return Header.from_fields(said, path)


def _metadata(path: Path) -> Mapping[str, str]:
    check_readable(path, "checkpoint")
    with path.open("rb") as file:
        start = file.read(8)
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise InputError(f"{path} is a pickle (a torch.save file): it could run code and is never loaded")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = file.read(length) if 0 < length < path.stat().st_size else b""
    try:
        header = json.loads(text)
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(ends, default=0)
        said = dict(header.get("__metadata__", {}))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a checkpoint, or it is cut short; copy or train it again") from error
    if path.stat().st_size != wanted:
        raise InputError(f"{path} is cut short: it should have {wanted} bytes; copy it again")
    return said


def rebuilt(origin: ModelSpec, path: Path) -> nn.Module:
    """The net that `origin` describes, with fresh weights. `path` is the file that says so.

    `InputError` when there is no such net, or none that such a small file can be of.
    """
    try:
        with Bounded(_SLACK_BYTES + _MOST_RATIO * Path(path).stat().st_size):
            model = origin.settings.build(origin.num_classes)
            for plan in origin.plans:
                model = plan.apply(model)
    except InputError as error:
        raise InputError(f"{path}: the net of its header cannot be built: {error}") from error
    except Exception as error:  # whatever sizes that make no sense make of the builders
        what, _, _ = f"{type(error).__name__}: {error}".partition("\n")  # PyTorch goes on with its own stack
        raise InputError(f"{path}: the net of its header cannot be built ({what}); copy or make it again") from error
    return remember(model, origin)


def filled(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> nn.Module:
    """`model` with the weights `state` of the file at `path`. `InputError` unless these are all of its own."""
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if wrong:
        raise InputError(f"{path}: its weights are of another net than its header says ({len(wrong)}: {wrong[0]} ...)")
    model.load_state_dict(state)
    return model


def _known(kinds: Mapping[str, type], kind: str) -> type:
    if kind not in kinds:
        raise InputError(f"its header tells of {kind!r}, which this project does not know: it is newer, so update")
    return kinds[kind]


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def header_of(model: nn.Module, **fields: Any) -> Header:
    """A header for `model`, which must remember how it was built."""
    origin = origin_of(model)
    if origin is None:
        raise InputError("this net does not remember how it was built: make it with solution.models, or keep its code")
    return Header(origin=origin, **fields)
