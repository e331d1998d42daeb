"""A checkpoint: weights, plans, and how to build the net, in one `.safetensors` file that is never unpickled.

    save(path, net, header_of(net, classes=...))     any module, whoever built it
    net, header = load(path)                         a net that this project builds
    net, header = load(path, into=MyNet())           a net of one's own: a fresh module of the same code

The metadata hold the architecture's settings where this project knows them, the plans applied since, classes,
normalization, the recipe and its figures. Loading replays the plans on a fresh net and fills in the weights.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from solution.contracts import (
    CLASSIFICATION,
    InputError,
    ModelSpec,
    Plan,
    code_of,
    name_code,
    plans_of,
    remember,
    spec_of,
    task_of,
)
from solution.input_spec import InputSpec
from solution.models.classifiers import HeadPlan
from solution.models.outputs import Logits
from solution.models.own_code import OwnNet, was_named
from solution.models.weights import Bounded
from solution.registry import MODELS, PLANS
from solution.runtime import check_readable, written_whole

VERSION = 4
"""3: neither `crop` nor `interpolation`. 2: no checksum.
1: plans lay within "net" too, and some of their fields had other names (`_upgraded`)."""
_FIRST_SUMMED = 3
_CHECKSUM, _NONE = "sha256", "0" * 64
"""The metadata's field that holds the SHA-256 of the file, as it would be with zeros there."""

_FETCHED = ("pretrained", "weights")
"""Settings that start a net from weights of elsewhere: no file of ours names them, for it has weights."""
_SLACK_BYTES = 1 << 30
_MOST_RATIO = 1024
"""A cut net's file may be small however large the net was before: as large as VGG's, or so many times the file."""

_TOO_LARGE = "it would be larger than any net that such a small file can be of"


@dataclass(frozen=True, kw_only=True)
class Header(InputSpec):
    """All that a checkpoint holds besides its weights.

    spec     how to build the net; None for a net of one's own, which is loaded `into` a fresh module
    code     how MODEL names the net, "my_model.py:Net(width=32)" or "module:Class", for whoever has to find it; it is
             imported only when the user named the very same code in this process, or in the one that started it
    wrapped  the net returned more than logits and stands in `models.outputs.Logits`
    kind     what a net of one's own is for, as `tasks` calls it
    plans    what was applied to the net since it was built, in order
    recipe   {"name": ..., "seed": ..., "stage": ..., "settings": {key: value}}
    figures  the row that was measured when it was written
    """

    spec: ModelSpec | None = None
    code: str = ""
    wrapped: bool = False
    kind: str = CLASSIFICATION
    plans: tuple[Plan, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes and self.outputs not in (None, len(self.classes)):
            raise InputError(f"{len(self.classes)} classes are named, and the net has {self.outputs}")

    @property
    def outputs(self) -> int | None:
        """How many classes the net tells apart; None where a net of one's own does not say."""
        own = self.spec.num_classes if self.spec is not None else len(self.classes) or None
        return self._heads[-1].num_classes if self._heads else own

    @property
    def built_for(self) -> int | None:
        """How many it was built for, before any plan."""
        return self._heads[0].before if self._heads else self.outputs

    @property
    def _heads(self) -> list[HeadPlan]:
        return [plan for plan in self.plans if isinstance(plan, HeadPlan)]

    @property
    def task(self) -> str:
        """What the net is for."""
        return self.kind if self.spec is None else task_of(self.spec.settings)

    def to_fields(self) -> dict[str, Any]:
        """All of it, ready for `json.dumps`."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        spec, plans = fields.pop("spec"), fields.pop("plans")
        net = None
        if self.kind == CLASSIFICATION:
            del fields["kind"]
        if spec is not None:
            kind = next(name for name, settings in MODELS.items() if isinstance(spec.settings, settings))
            net = {"kind": kind, "settings": dataclasses.asdict(spec.settings), "num_classes": spec.num_classes}
        return {"version": VERSION, "net": net, "plans": [plan.to_fields() for plan in plans], **fields}

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
        fields = _upgraded(fields)
        plans = tuple(_known(PLANS, plan["kind"]).from_fields(plan) for plan in fields["plans"])
        rest = {name: _tuple(value) for name, value in fields.items() if name not in ("version", "net", "plans")}
        return cls(spec=_spec(fields["net"]), plans=plans, **rest)


def _spec(net: Mapping[str, Any] | None) -> ModelSpec | None:
    if net is None:
        return None
    settings = _known(MODELS, net["kind"])(**{name: _tuple(value) for name, value in net["settings"].items()})
    if any(getattr(settings, name, None) for name in _FETCHED):
        raise InputError(f"its header names weights of elsewhere ({settings}); copy or make it again")
    return ModelSpec(settings=settings, num_classes=net["num_classes"])


_RENAMED = {"learn": "qat", "equalised": "equalized", "others": "other_dtype"}


def _upgraded(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The header of an older version as this one writes it."""
    if fields["version"] > 1:
        return fields
    net = dict(fields["net"])
    plans = [{_RENAMED.get(name, name): value for name, value in plan.items()} for plan in net.pop("plans")]
    for plan in plans:
        plan["kind"] = {"freeze": "convert"}.get(plan["kind"], plan["kind"])
    return {**fields, "net": net, "plans": plans}


def save(path: Path, model: nn.Module, header: Header) -> None:
    """Write `model` and `header` to `path`, whole or not at all."""
    from safetensors.torch import save as as_bytes

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        data = bytearray(as_bytes(state, {"featherweight": json.dumps(header.to_fields()), _CHECKSUM: _NONE}))
        place = data.index(f'"{_CHECKSUM}":"{_NONE}"'.encode()) + len(_CHECKSUM) + 4
        data[place : place + len(_NONE)] = hashlib.sha256(data).hexdigest().encode()
        temporary.write_bytes(data)


def load(path: Path, into: nn.Module | None = None) -> tuple[nn.Module, Header]:
    """The net, in evaluation mode, and its header. `InputError` for a file that is not a whole checkpoint of ours.

    into  a fresh module of the net's own code, as it was before the first step; it is left untouched
    """
    header = read_header(path)
    state = read_weights(path)
    return filled(rebuilt(header, path, into), state, path).eval(), header


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by their names. `InputError` when the file is not as it was written."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        data = Path(path).read_bytes()
        _check_sum(data, path)
        return from_bytes(data)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); copy or train it again") from error


def _check_sum(data: bytes, path: Path) -> None:
    """`InputError` when the file is not as it was written; those of older versions tell nothing of that."""
    start = data[8 : 8 + struct.unpack_from("<Q", data)[0]]
    metadata = json.loads(start)["__metadata__"]
    if _CHECKSUM not in metadata and json.loads(metadata["featherweight"])["version"] < _FIRST_SUMMED:
        return
    found = str(metadata.get(_CHECKSUM, "")).encode()
    place = 8 + start.find(f'"{_CHECKSUM}":"'.encode() + found) + len(_CHECKSUM) + 4
    whole = hashlib.sha256(memoryview(data)[:place])
    whole.update(_NONE.encode())
    whole.update(memoryview(data)[place + len(_NONE) :])
    if whole.hexdigest().encode() != found:
        raise InputError(f"{path} is damaged (its SHA-256 is not the one that it names); copy or train it again")


def read_header(path: Path) -> Header:
    """The header alone: reads the first kilobytes, no weights, so that it cannot notice a cut file."""
    fields = _metadata(Path(path)).get("featherweight")
    if fields is None:
        raise InputError(
            f"{path} holds weights, but not how to build their net: it was not written by this project. Name the net, "
            f"such as timm:resnet18 or my_model.py:Net, and the file with --weights {path}"
        )
    try:
        read = json.loads(fields)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} has a broken header ({error!r}); copy or make it again") from error
    return Header.from_fields(read, path)


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
        metadata = header.get("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata are texts")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a checkpoint, or it is cut short; copy or train it again") from error
    if path.stat().st_size != wanted:
        raise InputError(f"{path} is cut short: it should have {wanted} bytes; copy it again")
    return metadata


def rebuilt(header: Header, path: Path, into: nn.Module | None = None) -> nn.Module:
    """The net that `header` describes, with fresh weights. `path` is the file that has it; `into` as in `load`.

    `InputError` when there is no such net, or none that such a small file can be of.
    """
    if header.spec is None and into is None and was_named(header.code):
        own = OwnNet.of(header.code)
        into = None if own is None else own.build()
    if header.spec is None and into is None:
        raise InputError(
            f"{path} holds a net of your own ({header.code or 'code unknown'}): load it into a fresh one, "
            f"fw.load(path, into=MyNet()), or name its code as MODEL: {_shell_code(header)} --weights {path}"
        )
    try:
        with Bounded(_SLACK_BYTES + _MOST_RATIO * Path(path).stat().st_size, _TOO_LARGE):
            fresh = header.spec.build() if header.spec and into is None else copy.deepcopy(into)
            if header.wrapped and not isinstance(fresh, Logits):
                fresh = Logits(cast(nn.Module, fresh))
            model = remember(name_code(cast(nn.Module, fresh), header.code), header.spec)
            for plan in header.plans:
                model = plan.apply(model)
    except InputError as error:
        raise InputError(f"{path}: the net of its header cannot be built: {error}") from error
    except Exception as error:  # whatever sizes that make no sense make of the builders
        what, _, _ = f"{type(error).__name__}: {error}".partition("\n")  # PyTorch goes on with its own stack
        raise InputError(f"{path}: the net of its header cannot be built ({what}); copy or make it again") from error
    return model


def _shell_code(header: Header) -> str:
    return f"'{header.code}'" if ".py:" in header.code else "my_model.py:MyNet"


def filled(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> nn.Module:
    """`model` with the weights `state` of the file at `path`. `InputError` unless these are all of its own."""
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if wrong:
        raise InputError(f"{path}: its weights are of another net than its header names ({len(wrong)}: {wrong[0]} ...)")
    model.load_state_dict(state)
    return model


def _known(kinds: Mapping[str, Any], kind: str) -> Any:
    if kind not in kinds:
        raise InputError(f"its header names {kind!r}, which this project does not know: it is newer, so update")
    return kinds[kind]


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def header_of(model: nn.Module, **fields: Any) -> Header:
    """A header for `model`: how it was built, as far as this project knows, and the plans applied since."""
    wrapped = isinstance(model, Logits)
    return Header(spec=spec_of(model), code=code_of(model), wrapped=wrapped, plans=plans_of(model), **fields)
