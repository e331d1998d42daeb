"""ONNX: one file with a dynamic batch, run by onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.export.exported import Exported, check_signature
from solution.export.extras import needed
from solution.export.metadata import KEY, Metadata

OPSET = 20
"""21 writes the same nodes; from 22 on, onnxruntime 1.23 neither fuses nor blocks convolutions; it refuses 24."""
SUFFIX = ".onnx"
INPUT, OUTPUT = "images", "logits"
_WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Nodes that multiply by weights."""
_CUTTING = ("Relu", "Clip")
"""Nodes that cut off what the levels behind them cannot hold anyway: int8 does without them."""


def base(net: nn.Module, example: Tensor) -> Any:
    """`net` as an ``onnx.ModelProto`` with a dynamic batch. `example`: (B, 3, H, W)."""
    with needed("the ONNX format"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    try:
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(f"this net cannot be written as ONNX: {str(error).splitlines()[0]}") from error
    return program.model_proto


def floating(net: nn.Module, example: Tensor, precision: str) -> Any:
    """`net` as an ``onnx.ModelProto`` in fp32, or with its weights stored in fp16."""
    model = base(net, example)
    return halved(model) if precision == "fp16" else model


def write(model: Any, metadata: Metadata, path: Path) -> None:
    """Write an ``onnx.ModelProto`` that says what `about` says."""
    import onnx

    _strip(model)
    onnx.helper.set_model_props(model, {KEY: metadata.to_text()})
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


def _strip(model: Any) -> None:
    """Leave out what the exporter notes on every node for those who debug it: half of a small net's file."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def halved(model: Any) -> Any:
    """`model` with its weights stored in float16; the runtime widens them once, when it loads them."""
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or not tensor.dims:
            continue
        with np.errstate(over="ignore"):
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            raise InputError(f"{tensor.name} holds numbers beyond float16's 65,504: export it with fp32")
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.float16"], [name], f"{name}.widened", to=1))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def quantized(model: Any, images: list[Tensor], float_nodes: list[str]) -> Any:
    """`model` in int8 by onnxruntime's static quantizer: weights per channel, activations calibrated on `images`.

    images       each (1, 3, H, W), normalized
    float_nodes  names of nodes that stay in float
    """
    with needed("int8 in the ONNX format"):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        original, prepared, out = (Path(folder, f"{name}.onnx") for name in ("given", "prepared", "int8"))
        onnx.save_model(model, original)
        # Folds batch norms into convolutions and infers shapes, without which much would stay in float.
        quant_pre_process(original, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, out, _Reader(images), per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8, nodes_to_exclude=float_nodes,
                        # Behind a ReLU no level is spent on numbers below 0: half the rounding error of a GoogLeNet.
                        # Sums, joins and averages would each round once more: a tenth of macro F1 in a ShuffleNet.
                        op_types_to_quantize=[*_WEIGHTED, *_CUTTING],
                        extra_options={"TensorQuantOverrides": {INPUT: [_range_of(images)]}})  # fmt: skip
        return onnx.load(out)


def _range_of(images: list[Tensor]) -> dict[str, np.float32]:
    """A range of which the images take the lower half: 128 levels, about as many as photos have.

    Processors without VNNI instructions add pairs of products in 16 bits. 256 levels times weights of 8 bits are too
    much for these in the first layer, where ReLU has not made zeros: it took 3 points of macro F1 from a GoogLeNet.
    """
    low, high = min(0.0, *(float(image.min()) for image in images)), max(float(image.max()) for image in images)
    return {"rmin": np.float32(low), "rmax": np.float32(high + (high - low))}


def depthwise(model: Any) -> list[str]:
    """Names of the convolutions in which every output comes from one input channel."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in shapes and shapes[node.input[1]][1] == 1 and _groups(node) > 1
    ]


def first_and_last_layers(model: Any) -> list[str]:
    """Names of the first and the last node that multiplies by weights."""
    names = [node.name for node in model.graph.node if node.op_type in _WEIGHTED]
    return [names[0], names[-1]] if names else []


def _groups(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


class _Reader:
    """Calibration images, one at a time, as onnxruntime asks for them."""

    def __init__(self, images: Iterable[Tensor]) -> None:
        self._images: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image by the name of the input, or None."""
        image = next(self._images, None)
        return None if image is None else {INPUT: image.numpy()}


def open_file(path: Path, threads: int = 1, task: str | None = CLASSIFICATION) -> Exported:
    """The file, ready to run. `InputError` when it is damaged, not ours, or for another task."""
    with needed("running an ONNX file"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors have no class of their own
        raise InputError(f"{path} cannot be opened as an ONNX file ({error})") from error
    metadata = Metadata.from_text(session.get_modelmeta().custom_metadata_map.get(KEY), path, task)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    check_signature(path, [tuple(port.shape) for port in inputs], [tuple(port.shape) for port in outputs], metadata)
    name = inputs[0].name

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {name: images})[0]

    return Exported(path=path, runtime="onnxruntime", metadata=metadata, run=run, files=(path,))
