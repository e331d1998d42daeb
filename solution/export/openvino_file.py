"""OpenVINO's intermediate representation: an .xml file with the graph and a .bin file of the same name with weights."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.export import onnx_file
from solution.export.exported import Exported, check_signature
from solution.export.extras import needed
from solution.export.metadata import KEY, Metadata

SUFFIX = ".xml"
WEIGHTS = ".bin"
_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
_FIRST_AND_LAST = ("Parameter", "Constant", "Result")


def base(net: nn.Module, example: Tensor) -> Any:
    """`net` as an ``openvino.Model`` with a dynamic batch, by way of ONNX. `example`: (B, 3, H, W)."""
    with needed("the OpenVINO format"):
        import openvino
        from openvino.passes import ConstantFolding, Manager

    model = openvino.Core().read_model(model=onnx_file.base(net, example).SerializeToString())
    # ONNX leaves biases to be reshaped at run time: two thirds of a small net's operations, known beforehand.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    return model


def floating(net: nn.Module, example: Tensor, precision: str) -> Any:
    """The same: half precision comes in when the file is written."""
    return base(net, example)


def write(model: Any, metadata: Metadata, path: Path) -> None:
    """Write `path` (.xml) and its .bin; fp16 stores weights in half precision, which the runtime widens."""
    import openvino

    model.set_rt_info(metadata.to_text(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=metadata.precision == "fp16")


def quantized(model: Any, images: list[Tensor], float_nodes: list[str], typical: bool = False) -> Any:
    """`model` in int8 by NNCF's post-training quantization, calibrated on `images`.

    images       each (1, 3, H, W), normalized
    float_nodes  names of operations that stay in float
    typical      ranges as NNCF takes them, to the mean of the images' extremes; else those of least rounding error:
                 a sixth of a GoogLeNet's divergence, but four times what a YOLO loses
    """
    with needed("int8 in the OpenVINO format"), _without_telemetry():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)  # it would name every layer
    return nncf.quantize(
        model,
        nncf.Dataset([image.numpy() for image in images]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=float_nodes),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=None if typical else RangeEstimatorParametersSet.HISTOGRAM
        ),
    )


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """NNCF reports its use over the network, unless it is first imported where CI is set."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        os.environ.pop("CI")
        os.environ.update({} if before is None else {"CI": before})


def depthwise(model: Any) -> list[str]:
    """Names of the convolutions in which every output comes from one input channel."""
    grouped = [node for node in model.get_ops() if node.get_type_name() == "GroupConvolution"]
    # Their weights are (groups, outputs a group, inputs a group, H, W).
    return [node.get_friendly_name() for node in grouped if node.input(1).get_partial_shape()[2].to_string() == "1"]


def first_and_last_layers(model: Any) -> list[str]:
    """Names of the first and the last operation that multiplies by weights."""
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in _WEIGHTED]
    return [names[0], names[-1]] if names else []


def after_weights(model: Any) -> list[str]:
    """Names of the operations that only read what layers have found: behind them is no layer of several outputs."""
    operations = list(model.get_ordered_ops())
    before = {op.get_friendly_name() for op in operations if _finds(op)}
    for op in reversed(operations):
        readers = [port.get_node() for output in op.outputs() for port in output.get_target_inputs()]
        if any(reader.get_friendly_name() in before for reader in readers):
            before.add(op.get_friendly_name())
    names = [op.get_friendly_name() for op in operations if op.get_type_name() not in _FIRST_AND_LAST]
    return [name for name in names if name not in before]


def _finds(op: Any) -> bool:
    """Whether `op` is a layer with several outputs."""
    return op.get_type_name() in _WEIGHTED and op.output(0).get_partial_shape()[1].to_string() != "1"


def open_file(path: Path, threads: int = 1, task: str | None = CLASSIFICATION) -> Exported:
    """The files, ready to run. `InputError` when they are damaged, not ours, or for another task."""
    with needed("running an OpenVINO file"):
        import openvino

    weights = path.with_suffix(WEIGHTS)
    if not weights.is_file():
        raise InputError(f"{path} needs its weights beside it, and there is no {weights.name}; copy both files")
    core = openvino.Core()
    try:
        model = core.read_model(path)
        metadata = Metadata.from_text(said_by(model), path, task)
        check_signature(
            path, [_shape(port) for port in model.inputs], [_shape(port) for port in model.outputs], metadata
        )
        # On processors with bfloat16 the runtime would otherwise compute in it.
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be opened as an OpenVINO file ({error})") from error
    request = compiled.create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        return request.infer({0: images})[0]

    return Exported(path=path, runtime="openvino", metadata=metadata, run=run, files=(path, weights))


def _shape(port: Any) -> tuple:
    return tuple(size.get_length() if size.is_static else str(size) for size in port.get_partial_shape())


def said_by(model: Any) -> str | None:
    """What the file's writer said of it, if anything."""
    return str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None
