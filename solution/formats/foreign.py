"""What a child process finds in an ONNX or OpenVINO file: its tensors, and whether it opens and runs.

This file imports no PyTorch: see `solution.formats.child`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from solution.contracts import InputError
from solution.runtime import needed

_SIDE = 224
_KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def described(kind: str, path: Path, allow: Callable[[int], None]) -> dict[str, Any]:
    """Tensors [name, shape, bytes] and texts {name: text} of a file; it is opened and run on zeros, too.

    kind   "onnx" or "openvino"; with "_tensors" behind it the file is read alone
    allow  raises the limits by those of so many bytes more
    """
    library, _, alone = kind.partition("_")
    return _onnx(path, not alone, allow) if library == "onnx" else _openvino(path, not alone)


def _onnx(path: Path, runs: bool, allow: Callable[[int], None]) -> dict[str, Any]:
    with needed("reading an ONNX file"):
        import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
        within = [tensor for tensor in model.graph.initializer if not tensor.external_data]
        arrays = [(_text(tensor.name), onnx.numpy_helper.to_array(tensor)) for tensor in within]
    except (DecodeError, ValueError, TypeError) as error:
        raise _refusal(path, "an ONNX", error) from error
    found = {
        "tensors": [(name, array.shape, array.nbytes) for name, array in arrays],
        "texts": {_text(entry.key): _text(entry.value) for entry in model.metadata_props},
    }
    if runs:
        further = {_further(tensor, path) for tensor in _tensors(model) if tensor.external_data}
        allow(sum(file.stat().st_size for file in further))
        del model, within, arrays
        _run_onnx(path)
    return found


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a model, wherever it stands in it."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def _further(tensor: Any, path: Path) -> Path:
    """The file that holds the numbers of `tensor`. `InputError` unless it lies in the folder of `path`."""
    location = next((_text(entry.value) for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.parent.resolve()
    try:
        file = (folder / location).resolve()
        inside = file.is_relative_to(folder) and file.is_file()
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise InputError(
            f"{path} cannot be opened as an ONNX file: it wants weights from {location!r}, which is no file in its "
            "folder; copy all files of the net together"
        )
    return file


def _run_onnx(path: Path) -> None:
    with needed("running an ONNX file"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # of a damaged file it would print names as they are
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = session.get_inputs()
        sides = [size for port in inputs for size in port.shape[1:]]
        if all(port.type in _KINDS for port in inputs):
            zeros = {port.name: np.zeros(_shape(port.shape), _KINDS[port.type]) for port in inputs}
            _run(lambda: session.run(None, zeros), sides)
    except Exception as error:  # the library's errors have no class of their own; names may be no text
        raise _refusal(path, "an ONNX", error) from error


def _openvino(path: Path, runs: bool) -> dict[str, Any]:
    with needed("reading an OpenVINO file"):
        import openvino

    core = openvino.Core()
    try:
        model = core.read_model(path)
        constants = [one for one in model.get_ordered_ops() if one.get_type_name() == "Constant"]
        found = {
            "tensors": [
                (_text(one.get_friendly_name()), list(one.get_output_shape(0)), one.get_byte_size())
                for one in constants
            ],
            # What quantized a net notes its settings in trees.
            "texts": {name: str(item.value) for name, item in model.rt_info.items() if hasattr(item, "value")},
        }
        if runs:
            # On processors with bfloat16 the runtime would otherwise compute in it.
            config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
            request = core.compile_model(model, "CPU", config).create_infer_request()
            ports = [port.get_partial_shape() for port in model.inputs]
            shapes = [[size.get_length() if size.is_static else "" for size in port] for port in ports]
            zeros = [np.zeros(_shape(shape), np.float32) for shape in shapes]
            _run(lambda: request.infer(zeros), [size for shape in shapes for size in shape[1:]])
    except (RuntimeError, UnicodeDecodeError) as error:  # of a damaged file, and of names in it that are no text
        raise _refusal(path, "an OpenVINO", error) from error
    return found


def _refusal(path: Path, kind: str, error: Exception) -> Exception:
    """In one line; libraries report in many, and hide in words that memory was refused."""
    reason = " ".join(str(error).split())
    if "alloc" in reason:
        return MemoryError(reason)
    return InputError(f"{path} cannot be opened as {kind} file ({reason}): copy or export it again")


def _run(run: Callable[[], Any], sides: list[Any]) -> None:
    """Failure counts where the shapes that the file wants are known."""
    try:
        run()
    except Exception:
        if all(isinstance(side, int) for side in sides):
            raise


def _shape(shape: list[Any]) -> tuple[int, ...]:
    """With one picture in a batch of any size, and sides as usual where any will do."""
    return tuple(size if isinstance(size, int) else _SIDE if axis else 1 for axis, size in enumerate(shape))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
