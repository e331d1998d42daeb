"""OpenVINO's intermediate representation: an .xml file with the graph and a .bin file of the same name with weights."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.formats.base import Format, Line, Listing, check_description
from solution.formats.child import in_child
from solution.formats.exported import KEY, Exported, Metadata, in_parts
from solution.formats.onnx import ONNX
from solution.runtime import needed

_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
_FIRST_AND_LAST = ("Parameter", "Constant", "Result")


_BROKEN = (RuntimeError, UnicodeDecodeError)
"""What the library makes of a damaged file, and of names in it that are no text."""


class OpenVino(Format):
    """A graph is an ``openvino.Model``; its layers are called by their friendly names."""

    name = "openvino"
    suffix = ".xml"
    partners = (".bin",)
    runtime = "openvino"
    libraries = ("openvino",)

    def check_runtime(self) -> None:
        """OpenVINO can be imported."""
        with needed(f"the runtime {self.runtime}"):
            import openvino  # noqa: F401

    def base(self, net: nn.Module, example: Tensor) -> Any:
        """`net` in fp32 with a dynamic batch, by way of ONNX."""
        with needed("the OpenVINO format"):
            import openvino
            from openvino.passes import ConstantFolding, Manager

        model = openvino.Core().read_model(model=ONNX.base(net, example).SerializeToString())
        # ONNX leaves biases to be reshaped at run time: two thirds of a small net's operations, known beforehand.
        folding = Manager()
        folding.register_pass(ConstantFolding())
        folding.run_passes(model)
        return model

    def floating(self, net: nn.Module, example: Tensor, precision: str) -> Any:
        """The same for both: half precision comes in when the file is written."""
        return self.base(net, example)

    def write(self, graph: Any, metadata: Metadata, path: Path) -> None:
        """Two files; fp16 stores weights in half precision, which the runtime widens."""
        import openvino

        graph.set_rt_info(metadata.to_text(), [KEY])
        openvino.save_model(graph, path, compress_to_fp16=metadata.precision == "fp16")

    def quantized(self, base: Any, images: list[Tensor], float_layers: Sequence[str], fine_outputs: bool) -> Any:
        """By NNCF's post-training quantization.

        Ranges are those of least rounding error: a sixth of a GoogLeNet's divergence, but four times what a YOLO
        loses. With `fine_outputs` they are as NNCF takes them, to the mean of the images' extremes, and whatever
        follows the last layers stays in float.
        """
        # NNCF greets when it is imported, and draws bars of its own; torch misses a GPU when NNCF looks for a compiler.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        with needed("int8 in the OpenVINO format"), contextlib.redirect_stdout(io.StringIO()):
            import nncf
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level(logging.ERROR)  # it would name every layer
        in_float = dict.fromkeys([*float_layers, *(after_weights(base) if fine_outputs else ())])
        ranges = None if fine_outputs else RangeEstimatorParametersSet.HISTOGRAM
        with contextlib.redirect_stdout(io.StringIO()):
            return nncf.quantize(
                base,
                nncf.Dataset([image.numpy() for image in images]),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(images),
                fast_bias_correction=False,
                ignored_scope=nncf.IgnoredScope(names=list(in_float)),
                advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
            )

    def depthwise(self, base: Any) -> list[str]:
        """Group convolutions, whose weights are (groups, outputs a group, inputs a group, H, W)."""
        grouped = [node for node in base.get_ops() if node.get_type_name() == "GroupConvolution"]
        return [node.get_friendly_name() for node in grouped if node.input(1).get_partial_shape()[2].to_string() == "1"]

    def first_and_last_layers(self, base: Any) -> list[str]:
        """Operations that multiply by weights."""
        names = [node.get_friendly_name() for node in base.get_ordered_ops() if node.get_type_name() in _WEIGHTED]
        return [names[0], names[-1]] if names else []

    def check(self, path: Path) -> None:
        """A child process opens and runs the file first."""
        self.check_runtime()
        in_child("openvino", *self._whole(path))

    def open(
        self,
        path: Path,
        threads: int = 1,
        task: str | None = CLASSIFICATION,
        feed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Exported:
        """In OpenVINO, on the CPU, in float32."""
        with needed("running an OpenVINO file"):
            import openvino

        core = openvino.Core()
        try:
            model = core.read_model(path)
            ports = [[_shape(port) for port in own] for own in (model.inputs, model.outputs)]
            metadata = Metadata.of_file(_description(model), path, task, feed, ports)
            # On processors with bfloat16 the runtime would otherwise compute in it.
            config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
            compiled = core.compile_model(model, "CPU", config)
        except _BROKEN as error:
            raise InputError(f"{path} cannot be opened as an OpenVINO file ({' '.join(str(error).split())})") from error
        request = compiled.create_infer_request()

        def run(images: np.ndarray) -> np.ndarray:
            return request.infer({0: images})[0]

        whole = in_parts(run, ports[0][0][0])
        return Exported(path=path, runtime=self.runtime, metadata=metadata, run=whole, files=self._whole(path))

    def listing(self, path: Path) -> Listing:
        """Its constants."""
        files = self._whole(path)
        found = in_child("openvino_tensors", *files)
        check_description(found["texts"].get(KEY), path)
        lines = tuple(Line.of(*tensor) for tensor in found["tensors"])
        return Listing(kind="OpenVINO", lines=lines, num_bytes=sum(file.stat().st_size for file in files))

    def _whole(self, path: Path) -> tuple[Path, ...]:
        weights = self.files(path)[1]
        if not weights.is_file():
            raise InputError(f"{path} needs its weights, and there is no {weights.name} in its folder; copy both files")
        return path, weights


OPENVINO = OpenVino()


def after_weights(model: Any) -> list[str]:
    """Names of the operations behind which no layer of several outputs follows."""
    operations = list(model.get_ordered_ops())
    before = {op.get_friendly_name() for op in operations if _is_layer(op)}
    for op in reversed(operations):
        readers = [port.get_node() for output in op.outputs() for port in output.get_target_inputs()]
        if any(reader.get_friendly_name() in before for reader in readers):
            before.add(op.get_friendly_name())
    names = [op.get_friendly_name() for op in operations if op.get_type_name() not in _FIRST_AND_LAST]
    return [name for name in names if name not in before]


def _is_layer(op: Any) -> bool:
    """Whether `op` multiplies by weights and has several outputs."""
    return op.get_type_name() in _WEIGHTED and op.output(0).get_partial_shape()[1].to_string() != "1"


def _shape(port: Any) -> tuple:
    return tuple(size.get_length() if size.is_static else str(size) for size in port.get_partial_shape())


def _description(model: Any) -> str | None:
    """The metadata that the file's writer left in it, if any."""
    return str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None
