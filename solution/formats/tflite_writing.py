"""The flatbuffer of a .tflite file, written without what no runtime reads, and with nothing in it twice."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import numpy as np

from solution.formats.tflite import EXTRA, is_constant, kind_of, next_name, schema, text_of
from solution.liveness import ALIGNMENT
from solution.runtime import needed


def packed(model: Any, metadata: dict[str, str], *, names: bool = False, lean: bool = False) -> bytes:
    """The file's bytes, every tensor's data at a multiple of 16.

    metadata  {name: text} to be written with it
    names     constants keep theirs; else they are called by the operations that read them
    lean      without what the interpreter for microcontrollers never reads: scales of biases, zero points of weights,
          which are all 0, and signatures
    """
    known = schema()
    inner = model.subgraphs[0]
    read = {index for item in inner.operators for index in item.inputs if index >= 0}
    constants = [inner.tensors[index] for index in read if is_constant(model, index)]
    if not names:
        for tensor in constants:
            tensor.name = None
        _drop_counted_names(model)
    if lean:
        model.signatureDefs = None
        for tensor in (tensor for tensor in constants if tensor.quantization is not None):
            zeros = tensor.quantization.zeroPoint
            if tensor.type == known.TensorType.INT32:
                tensor.quantization = None
            elif zeros is not None and not np.any(zeros):
                tensor.quantization.zeroPoint = [0]
    model.description = None
    _share_buffers(model)
    model.metadata = []
    for name, text in metadata.items():
        buffer, entry = known.BufferT(), known.MetadataT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(model.buffers) - 1
        model.metadata.append(entry)

    builder = _builder()
    steps = [tensor.quantization for tensor in inner.tensors if tensor.quantization is not None]
    packers: dict[str, Any] = {}
    for own in steps:  # equal ones are written once, too
        own.Pack = packers.setdefault(str([list(value) if isinstance(value, np.ndarray) else value
                                           for value in vars(own).values()]), functools.cache(own.Pack))  # fmt: skip
    builder.Finish(model.Pack(builder), b"TFL3")
    for own in steps:
        del own.Pack
    return bytes(builder.Output())


def _drop_counted_names(model: Any) -> None:
    """Those that a reader finds again by counting, but for the outputs'."""
    inner, unnamed = model.subgraphs[0], Counter[str]()
    for item in inner.operators:
        kind, made = kind_of(model, item), inner.tensors[item.outputs[0]]
        if item.outputs[0] not in inner.outputs and text_of(made.name) == next_name(kind, Counter(unnamed)):
            made.name = None
        unnamed[kind] += not made.name


def _builder() -> Any:
    """Of flatbuffers: bytes of data begin where numbers of any type may, as some processors stop at others. Equal
    vectors of numbers, such as shapes, and the zero points of a layer's channels, are written once.
    """
    with needed("writing a .tflite file", EXTRA):
        import flatbuffers

    written: dict[bytes, int] = {}

    class Builder(flatbuffers.Builder):
        number_bytes = 0

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
            self.begun, self.number_bytes = self.Offset(), elemSize * numElems
            return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)

        def PrependUOffsetTRelative(self, off: int) -> None:  # noqa: N802
            self.number_bytes = 0  # what leads elsewhere is no number
            super().PrependUOffsetTRelative(off)

        def EndVector(self, *arguments: int) -> int:  # noqa: N802
            place, head = super().EndVector(*arguments), self.Head()
            num_bytes, self.number_bytes = self.number_bytes, 0  # a string ends here, too, and begins elsewhere
            if not num_bytes:
                return place
            first = written.setdefault(bytes(self.Bytes[head : head + 4 + num_bytes]), place)
            if first != place:
                self.head = len(self.Bytes) - self.begun  # take it back
            return first

    return Builder(1024)


def _share_buffers(model: Any) -> None:
    """Equal data are kept once, and data that no tensor names not at all."""
    known = schema()
    empty = known.BufferT()
    kept: list[Any] = [empty]  # the first is empty by convention
    places: dict[bytes, int] = {b"": 0}
    for inner in model.subgraphs:
        for tensor in inner.tensors:
            data = model.buffers[tensor.buffer].data
            content = b"" if data is None else bytes(bytearray(data))
            if content not in places:
                places[content] = len(kept)
                buffer = known.BufferT()
                buffer.data = np.frombuffer(content, np.uint8)
                kept.append(buffer)
            tensor.buffer = places[content]
    model.buffers = kept


def float_ends(model: Any) -> None:
    """Give a graph of integers inputs and outputs in float32, in place: operations that change them stand around it."""
    known, inner = schema(), model.subgraphs[0]

    def beside(index: int, kind: int) -> tuple[int, Any]:
        tensor, new, operation = inner.tensors[index], known.TensorT(), known.OperatorT()
        new.name, new.shape, new.type, new.buffer = (tensor.name or b"") + b"/float", tensor.shape, 0, 0
        new.hasRank, new.shapeSignature = tensor.hasRank, tensor.shapeSignature
        inner.tensors.append(new)
        code = known.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        model.operatorCodes.append(code)
        operation.opcodeIndex = len(model.operatorCodes) - 1
        return len(inner.tensors) - 1, operation

    kinds = known.BuiltinOperator
    for ends, kind in ((inner.inputs, kinds.QUANTIZE), (inner.outputs, kinds.DEQUANTIZE)):
        (index,) = ends
        if inner.tensors[index].type != known.TensorType.INT8:
            continue
        new, operation = beside(index, kind)
        given = ends is inner.inputs
        operation.inputs, operation.outputs = ([new], [index]) if given else ([index], [new])
        inner.operators.insert(0 if given else len(inner.operators), operation)
        for own in model.signatureDefs or ():
            for entry in own.inputs if given else own.outputs:
                entry.tensorIndex = new
        if given:
            inner.inputs = [new]
        else:
            inner.outputs = [new]
