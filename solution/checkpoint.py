"""A checkpoint: weights + how to build the net, in one `.safetensors` file that is never unpickled.

The metadata hold the architecture's settings, the plans applied since, classes, normalisation, the recipe and its
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
from solution.contracts import InputError, ModelSettings, Origin, Plan, origin_of, remember
from solution.models.cifar_resnet import CifarResNet
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet
from solution.models.ssdlite import SsdLite
from solution.models.yolo import Yolo
from solution.runtime import written_whole

VERSION = 1
MODELS: dict[str, type[ModelSettings]] = {
    "shufflenet": ShuffleNet,
    "classifier": Classifier,
    "cifar_resnet": CifarResNet,
    "yolo": Yolo,
    "ssdlite": SsdLite,
}


@dataclass(frozen=True, kw_only=True)
class Header:
    """All that a checkpoint says besides its weights.

    origin      how to build the net
    classes     names, in the order of the outputs
    mean, std   per channel, of images scaled to [0, 1]
    size        side of the square input in pixels
    data        name of the data set that it was trained on
    recipe      {"name": ..., "seed": ..., "stage": ..., "knobs": {address: value}}
    figures     the row that was measured when it was written
    """

    origin: Origin
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    data: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

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
    def from_fields(cls, fields: Mapping[str, Any]) -> Header:
        """The header again. `InputError` for a newer format; KeyError or TypeError for fields that are none."""
        if fields["version"] > VERSION:
            raise InputError(f"this checkpoint has format version {fields['version']}, newer than {VERSION}: update")
        net = fields["net"]
        settings = MODELS[net["kind"]](**{name: _tuple(value) for name, value in net["settings"].items()})
        plans = tuple(_plan(plan) for plan in net["plans"])
        origin = Origin(settings=settings, num_classes=net["num_classes"], plans=plans)
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
        return Header.from_fields(json.loads(fields))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} has a broken header ({error!r}); copy or train it again") from error


def _metadata(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    with path.open("rb") as file:
        start = file.read(8)
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise InputError(f"{path} is a pickle (a torch.save file): it could run code and is never loaded")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = file.read(length) if 0 < length < path.stat().st_size else b""
    try:
        header = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not a checkpoint, or it is cut short; copy or train it again") from error
    _check_length(path, header, 8 + length)
    return header.get("__metadata__", {})


def _check_length(path: Path, header: Mapping[str, Any], start: int) -> None:
    ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
    if path.stat().st_size != start + max(ends, default=0):
        raise InputError(f"{path} is cut short: it should have {start + max(ends, default=0)} bytes; copy it again")


def rebuilt(origin: Origin, path: Path) -> nn.Module:
    """The net that `origin` describes, with fresh weights. `path` is the file that says so, for messages."""
    model = origin.settings.build(origin.num_classes)
    for plan in origin.plans:
        try:
            model = plan.apply(model)
        except InputError as error:
            raise InputError(f"{path}: a plan of its header does not fit its net: {error}") from error
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


def _plan(fields: dict[str, Any]) -> Plan:
    return PLANS[fields["kind"]].from_fields(fields)


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def header_of(model: nn.Module, **fields: Any) -> Header:
    """A header for `model`, which must remember how it was built."""
    origin = origin_of(model)
    if origin is None:
        raise InputError("this net does not remember how it was built: make it with solution.models, or keep its code")
    return Header(origin=origin, **fields)
