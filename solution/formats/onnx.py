"""ONNX: one file with a dynamic batch, run by onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.formats.base import Format, Line, Listing, check_description
from solution.formats.child import in_child
from solution.formats.exported import KEY, Exported, Metadata, in_parts
from solution.runtime import needed

OPSET = 20
"""21 writes the same nodes; from 22 on, onnxruntime 1.23 neither fuses nor blocks convolutions; it refuses 24."""
INPUT, OUTPUT = "images", "logits"
_WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Nodes that multiply by weights."""
_CUTTING = ("Relu", "Clip")
"""Nodes that cut off what the levels behind them cannot hold anyway: int8 does without them."""


class Onnx(Format):
    """A graph is an ``onnx.ModelProto``; its layers are called by their nodes' names."""

    name = "onnx"
    suffix = ".onnx"
    runtime = "onnxruntime"
    libraries = ("onnxruntime",)

    def check_runtime(self) -> None:
        """onnxruntime can be imported."""
        with needed(f"the runtime {self.runtime}"):
            import onnxruntime  # noqa: F401

    def base(self, net: nn.Module, example: Tensor) -> Any:
        """`net` in fp32 with a dynamic batch."""
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
        if program is None:  # only when it writes a file
            raise InputError("this net cannot be written as ONNX")
        return program.model_proto

    def floating(self, net: nn.Module, example: Tensor, precision: str) -> Any:
        """In fp16 the runtime widens the weights once, when it loads them."""
        model = self.base(net, example)
        return _halved(model) if precision == "fp16" else model

    def write(self, graph: Any, metadata: Metadata, path: Path) -> None:
        """One file, without what the exporter notes on every node for those who debug it: half of a small net's."""
        import onnx

        del graph.graph.value_info[:]
        inner = graph.graph
        for part in (graph, inner, *inner.node, *inner.initializer, *inner.input, *inner.output):
            del part.metadata_props[:]
            part.doc_string = ""
        onnx.helper.set_model_props(graph, {KEY: metadata.to_text()})
        onnx.checker.check_model(graph)
        onnx.save_model(graph, path)

    def quantized(self, base: Any, images: list[Tensor], float_layers: Sequence[str], fine_outputs: bool) -> Any:
        """By onnxruntime's static quantizer, which leaves in float whatever follows the last layers."""
        with needed("int8 in the ONNX format"):
            import onnx
            from onnxruntime.quantization import QuantType, quantize_static
            from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory() as folder:
            original, prepared, out = (Path(folder, f"{name}.onnx") for name in ("given", "prepared", "int8"))
            onnx.save_model(base, original)
            # Folds batch norms into convolutions and infers shapes, without which much would stay in float.
            quant_pre_process(original, prepared, skip_symbolic_shape=True)
            quantize_static(prepared, out, _Reader(images), per_channel=True, activation_type=QuantType.QUInt8,
                            weight_type=QuantType.QInt8, nodes_to_exclude=list(float_layers),
                            # Behind a ReLU no level is spent on numbers below 0: half a GoogLeNet's rounding error.
                            # Sums, joins and averages would each round once more: a tenth of a ShuffleNet's macro F1.
                            op_types_to_quantize=[*_WEIGHTED, *_CUTTING],
                            extra_options={"TensorQuantOverrides": {INPUT: [_range_of(images)]}})  # fmt: skip
            return onnx.load(out)

    def depthwise(self, base: Any) -> list[str]:
        """Grouped convolutions of one input channel each."""
        shapes = {tensor.name: tensor.dims for tensor in base.graph.initializer}
        convolutions = [node for node in base.graph.node if node.op_type == "Conv" and node.input[1] in shapes]
        groups = {node.name: _attribute(node, "group", 1) for node in convolutions}
        return [node.name for node in convolutions if shapes[node.input[1]][1] == 1 and groups[node.name] > 1]

    def first_and_last_layers(self, base: Any) -> list[str]:
        """Nodes that multiply by weights."""
        names = [node.name for node in base.graph.node if node.op_type in _WEIGHTED]
        return [names[0], names[-1]] if names else []

    def check(self, path: Path) -> None:
        """A child process opens and runs the file first."""
        self.check_runtime()
        in_child("onnx", path)

    def open(
        self,
        path: Path,
        threads: int = 1,
        task: str | None = CLASSIFICATION,
        feed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Exported:
        """In onnxruntime, on the CPU; also a file of others, with or without a free batch, channels first or last."""
        with needed("running an ONNX file"):
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # of a damaged file it would print names as they are
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            inputs, outputs = session.get_inputs(), session.get_outputs()
            name, result, shapes = inputs[0].name, outputs[0].name, [tuple(port.shape) for port in inputs]
            text = session.get_modelmeta().custom_metadata_map.get(KEY)
        except Exception as error:  # the library's errors have no class of their own; names may be no text
            raise InputError(f"{path} cannot be opened as an ONNX file ({' '.join(str(error).split())})") from error
        shape = shapes[0]
        last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
        ports = [(shape[0], shape[3], *shape[1:3])] if last else shapes, [tuple(port.shape) for port in outputs]
        metadata = Metadata.of_file(text, path, task, feed, ports)
        kind = np.float16 if inputs[0].type == "tensor(float16)" else np.float32

        def run(images: np.ndarray) -> np.ndarray:
            seen = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if last else images, dtype=kind)
            return session.run([result], {name: seen})[0]

        whole = in_parts(run, shape[0])
        return Exported(path=path, runtime=self.runtime, metadata=metadata, run=whole, files=(path,))

    def read(self, path: Path) -> Any:
        """The graph of a classifier of others, as `base` would give it: its ports have our names."""
        with needed("int8 in the ONNX format"):
            import onnx

        model = onnx.load(path)
        names = {model.graph.input[0].name: INPUT, model.graph.output[0].name: OUTPUT}
        held = {tensor.name for tensor in model.graph.initializer}
        if model.graph.input[0].name in held or len([port for port in model.graph.input if port.name not in held]) != 1:
            raise InputError(f"{path} lists its weights among its inputs: write it with a newer exporter")
        for port in (model.graph.input[0], model.graph.output[0]):
            port.name = names[port.name]
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
            for ends in (node.input, node.output):
                ends[:] = [names.get(name, name) for name in ends]
        return model

    def listing(self, path: Path) -> Listing:
        """Its initializers; those that a file of others keeps in further files are not read."""
        found = in_child("onnx_tensors", path)
        check_description(found["texts"].get(KEY), path)
        lines = tuple(Line.of(*tensor) for tensor in found["tensors"])
        return Listing(kind="ONNX", lines=lines, num_bytes=path.stat().st_size)


ONNX = Onnx()


def _halved(model: Any) -> Any:
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


def _range_of(images: list[Tensor]) -> dict[str, np.float32]:
    """A range of which the images take the lower half: 128 levels, about as many as photos have.

    Processors without VNNI instructions add pairs of products in 16 bits. 256 levels times weights of 8 bits are too
    much for these in the first layer, where ReLU has not made zeros: it took 3 points of macro F1 from a GoogLeNet.
    """
    low, high = min(0.0, *(float(image.min()) for image in images)), max(float(image.max()) for image in images)
    return {"rmin": np.float32(low), "rmax": np.float32(high + (high - low))}


def _attribute(node: Any, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


class _Reader:
    """Calibration images, one at a time, as onnxruntime reads them."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self._images: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image by the name of the input, or None."""
        image = next(self._images, None)
        return None if image is None else {INPUT: image.numpy()}
