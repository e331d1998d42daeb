"""The flatbuffer of a .tflite file, read as plain values.

This file imports no PyTorch: a child process reads files of others with it (`solution.formats.child`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from solution.contracts import InputError
from solution.liveness import live_bytes, placed_bytes
from solution.runtime import needed
from solution.text import printable

EXTRA = "litert"
TYPES = {"FLOAT32": "f4", "FLOAT16": "f2", "INT8": "i1", "UINT8": "u1", "INT16": "i2", "INT32": "i4", "INT64": "i8",
         "BOOL": "?", "FLOAT64": "f8", "UINT32": "u4", "UINT64": "u8", "UINT16": "u2"}  # fmt: skip
"""{type of a tensor, as the schema calls it: numpy's}."""
_MOST_TEXT = 2**20
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One tensor. `offset`: constants have data in the file, of `num_bytes`; others need so many bytes while they live.

    scale, zero_point  of a quantized tensor with one scale; None and 0 of others
    """

    name: str
    shape: tuple[int, ...]
    type: str
    num_bytes: int
    constant: bool
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation: its kind as the schema calls it, and indices of its tensors; the name is that of its output."""

    kind: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The first subgraph of a file. metadata: {name: text} of its entries that are short texts."""

    places: tuple[Place, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Graph:
        """The same again from what `dataclasses.asdict` gave, also by way of JSON."""

        def plain(entry: dict[str, Any]) -> dict[str, Any]:
            return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}

        places = tuple(Place(**plain(place)) for place in fields["places"])
        operations = tuple(Operation(**plain(item)) for item in fields["operations"])
        return cls(**{**plain(fields), "places": places, "operations": operations})

    @property
    def kinds(self) -> Counter[str]:
        """{kind of operation: how many}."""
        return Counter(operation.kind for operation in self.operations)

    def peak(self) -> tuple[int, str]:
        """The bytes that activations take, and the operation at which most of them live."""
        sizes = {index: place.num_bytes for index, place in enumerate(self.places) if not place.constant}
        steps = [(item.inputs, item.outputs) for item in self.operations]
        live = live_bytes(steps, sizes, self.inputs, self.outputs)
        if not live:
            return 0, "nothing"
        step = max(range(len(live)), key=live.__getitem__)
        where = f"{self.operations[step].name} ({self.operations[step].kind.lower()})"
        return placed_bytes(steps, sizes, self.inputs, self.outputs), where

    def summary(self) -> str:
        """One line: the operations, most frequent first."""
        kinds = ", ".join(f"{count} {kind.lower()}" for kind, count in self.kinds.most_common())
        return f"{len(self.operations)} operations: {kinds}"


def schema() -> Any:
    """The module of the format's classes. `InputError` that names the extra when it is not here."""
    with needed("reading a .tflite file", EXTRA):
        from ai_edge_litert import schema_py_generated
    return schema_py_generated


def parsed(data: bytes, what: object) -> Any:
    """The file as the format's own object, a ``ModelT``. `InputError` for what is no such file."""
    known = schema()
    if data[4:8] != b"TFL3":
        raise InputError(f"{what} cannot be read as a .tflite file, it does not begin like one: export it again")
    try:
        model = known.ModelT.InitFromPackedBuf(data, 0)
        if not model.subgraphs or model.subgraphs[0].tensors is None:
            raise ValueError("it holds no graph")
        for buffer in model.buffers:
            if buffer.offset > 1 and buffer.size:  # large ones stand behind all that a reader walks through
                if buffer.offset + buffer.size > len(data):
                    raise ValueError("it ends before its weights do")
                buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
    except Exception as error:  # whatever offsets that lead nowhere make of the reader
        raise InputError(f"{what} cannot be read as a .tflite file ({error!r}): copy or export it again") from error
    return model


def graph_of(model: Any, what: object) -> Graph:
    """What lies in a ``ModelT``. `InputError` when it contradicts itself."""
    try:
        return _graph_of(model)
    except Exception as error:  # indices that lead nowhere, types that nobody knows
        raise InputError(f"{what} cannot be read as a .tflite file ({error!r}): copy or export it again") from error


def _graph_of(model: Any) -> Graph:
    known, inner = schema(), model.subgraphs[0]
    types = {value: name for name, value in vars(known.TensorType).items() if isinstance(value, int)}
    kinds = {value: name for name, value in vars(known.BuiltinOperator).items() if isinstance(value, int)}
    codes = [_kind(code, kinds) for code in model.operatorCodes or ()]
    places = []
    for tensor in inner.tensors:
        buffer = model.buffers[tensor.buffer]
        shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        type_ = types[tensor.type]
        constant = buffer.data is not None and len(buffer.data) > 0
        width = np.dtype(TYPES[type_]).itemsize if type_ in TYPES else 1
        quantization = tensor.quantization
        scales = [] if quantization is None or quantization.scale is None else quantization.scale
        single = len(scales) == 1
        zero = quantization.zeroPoint[0] if single and quantization.zeroPoint is not None else 0
        places.append(
            Place(
                name=text_of(tensor.name),
                shape=shape,
                type=type_,
                num_bytes=len(buffer.data) if constant else prod(abs(size) for size in shape) * width,
                constant=constant,
                scale=float(scales[0]) if single else None,
                zero_point=int(zero),
            )
        )
    operations = []
    unnamed: Counter[str] = Counter()
    for number, item in enumerate(inner.operators or ()):
        outputs, kind = tuple(int(index) for index in item.outputs), codes[item.opcodeIndex]
        name = (places[outputs[0]].name if outputs else "") or next_name(kind, unnamed)
        inputs = tuple(int(index) for index in (item.inputs if item.inputs is not None else ()))
        for index in (*inputs, *outputs):
            if not -1 <= index < len(places):
                raise ValueError(f"operation {number} names tensor {index} of {len(places)}")
        operations.append(Operation(kind=kind, name=name, inputs=inputs, outputs=outputs))
    entries = {text_of(item.name): model.buffers[item.buffer].data for item in model.metadata or ()}
    return Graph(
        places=tuple(places),
        operations=tuple(operations),
        inputs=tuple(int(index) for index in inner.inputs),
        outputs=tuple(int(index) for index in inner.outputs),
        metadata={
            name: bytes(bytearray(data)).decode("utf-8", "replace")
            for name, data in entries.items()
            if data is not None and len(data) < _MOST_TEXT
        },
    )


def _kind(code: Any, kinds: dict[int, str]) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return (
        f"CUSTOM {text_of(code.customCode)}" if kinds.get(number) == "CUSTOM" else kinds.get(number, f"CODE {number}")
    )


def next_name(kind: str, counts: Counter[str]) -> str:
    """What an operation without a name is called, the next of its kind; it is counted."""
    counts[kind] += 1
    return f"{kind.lower()} {counts[kind]}"


def text_of(value: bytes | str | None) -> str:
    """A name in a file as text that can be printed."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
    return printable(text)


def name_layers(model: Any, layers: Iterable[tuple[str, np.ndarray]]) -> None:
    """Call every tensor by the layer of the net that makes it, in place; converters leave names of their own.

    layers  (path, weight as PyTorch holds it) of each layer. A norm that was folded in scales each output alone, so
            that a weight and its copy in the file point the same way: the nearest one of the same shape is its layer.
    """
    known, inner = schema(), model.subgraphs[0]
    left = [(path, directions(weight)) for path, weight in layers]
    kinds = {value: name for name, value in vars(known.BuiltinOperator).items() if isinstance(value, int)}
    counts: Counter[str] = Counter()
    named = set(inner.inputs)
    for item in inner.operators:
        kind = _kind(model.operatorCodes[item.opcodeIndex], kinds)
        own = _outputs_first(model, item, kind)
        fitting = [] if own is None else [place for place, (_, other) in enumerate(left) if other.shape == own.shape]
        if fitting:
            path, _ = left.pop(max(fitting, key=lambda place: abs(float((own * left[place][1]).sum()))))
        else:
            path = next_name(kind, counts)
        for position, index in (*enumerate(item.inputs, 1), *enumerate(item.outputs)):
            if index >= 0 and index not in named and (index in item.outputs or is_constant(model, index)):
                inner.tensors[index].name = (f"{path}/{position}" if index not in item.outputs[:1] else path).encode()
                named.add(index)


def kind_of(model: Any, item: Any) -> str:
    """What an operation of a ``ModelT`` is, as the schema calls it."""
    kinds = {value: name for name, value in vars(schema().BuiltinOperator).items() if isinstance(value, int)}
    return _kind(model.operatorCodes[item.opcodeIndex], kinds)


def array_of(model: Any, tensor: Any) -> np.ndarray | None:
    """The numbers of a constant of a ``ModelT``; None of what is none, or of a type without a name here."""
    data = model.buffers[tensor.buffer].data
    types = {value: name for name, value in vars(schema().TensorType).items() if isinstance(value, int)}
    if data is None or not len(data) or types.get(tensor.type) not in TYPES:
        return None
    return np.frombuffer(bytes(bytearray(data)), TYPES[types[tensor.type]]).reshape(
        [int(size) for size in tensor.shape]
    )


def is_constant(model: Any, index: int) -> bool:
    """Whether a tensor of a ``ModelT`` has numbers in the file."""
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def _outputs_first(model: Any, item: Any, kind: str) -> np.ndarray | None:
    """(O, I) the directions of an operation's float weights; None where it has none."""
    if kind not in WEIGHTED[:3]:
        return None
    tensor = model.subgraphs[0].tensors[item.inputs[1]]
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema().TensorType.FLOAT32:
        return None
    weight = np.frombuffer(bytes(bytearray(data)), "<f4").reshape([int(size) for size in tensor.shape])
    weight = weight.transpose(3, 0, 1, 2) if kind == "DEPTHWISE_CONV_2D" else weight
    return directions(weight.transpose(0, 3, 1, 2) if weight.ndim == 4 else weight)


def directions(weight: np.ndarray) -> np.ndarray:
    """(O, ...) each output's weights at length 1, flat: (O, I)."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def role_of(kind: str, position: int, names: Sequence[str] = ("input", "weight", "bias")) -> str:
    """What a constant that an operation of this kind reads at `position` is called."""
    return names[position] if kind in WEIGHTED and position < len(names) else f"constant {position}"


def clean_message(error: BaseException) -> str:
    """The first line of what an interpreter prints, without places in its own sources."""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"^\S+\.(cc|cpp|h|py):?\d*:?\s*", "", first.strip())
