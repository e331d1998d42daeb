"""Microcontrollers: the .tflite file as an array in C++, a header, and a program, run by TensorFlow Lite Micro."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.formats import litert_runtime
from solution.formats.base import Format, Listing, check_description
from solution.formats.child import in_child
from solution.formats.exported import KEY, Exported, Metadata, in_parts
from solution.formats.litert import LITERT, lines_of, notes_of, room, signature
from solution.formats.litert_runtime import MICRO_EXTRA
from solution.formats.micro_code import header_text, program_text, source_text
from solution.formats.tflite import Graph, graph_of
from solution.formats.tflite_writing import packed
from solution.runtime import needed
from solution.temporaries import final_name

_KINDS = """
ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_TO CAST CEIL
CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EQUAL EXP EXPAND_DIMS FILL
FLOOR FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D
LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN
MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RELU6 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT
SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV UNPACK
ZEROS_LIKE
"""
_SPELLED = {"PADV2": "PadV2", "BATCH_MATMUL": "BatchMatMul", "CUMSUM": "CumSum"}


class Micro(Format):
    """A graph is LiteRT's; all of it is of integers, inputs and outputs too."""

    name = "micro"
    suffix = ".cc"
    partners = (".h", ".main.cpp")
    runtime = "tflite-micro"
    libraries = ("tflite-micro",)
    precisions = ("int8", "fp32")
    on_chips = True

    def check_runtime(self) -> None:
        """The interpreter can be imported."""
        with needed(f"the runtime {self.runtime}", MICRO_EXTRA):
            import tflite_micro.python.tflite_micro.runtime  # noqa: F401

    def base(self, net: nn.Module, example: Tensor) -> Any:
        """As LiteRT's. `InputError` that names the layer whose operation the interpreter lacks."""
        self.check_runtime()
        model = LITERT.base(net, example)
        methods_of(graph_of(model, "the converted net"))
        return model

    def floating(self, net: nn.Module, example: Tensor, precision: str) -> Any:
        """In fp32: for processors with floating point, and memory to spare."""
        return self.base(net, example)

    def quantized(self, base: Any, images: list[Tensor], float_layers: Sequence[str], fine_outputs: bool) -> Any:
        """As LiteRT's."""
        return LITERT.quantized(base, images, float_layers, fine_outputs)

    def depthwise(self, base: Any) -> list[str]:
        """None stays in float."""
        return []

    def first_and_last_layers(self, base: Any) -> list[str]:
        """None stays in float."""
        return []

    def write(self, graph: Any, metadata: Metadata, path: Path) -> None:
        """The array, the header with what was measured, and a program to start from."""
        data = packed(graph, {KEY: metadata.to_text()}, lean=True)
        header, program = self.files(path)[1:]
        include = Path(final_name(path)).with_suffix(header.suffix).name
        path.write_text(source_text(data, include), encoding="utf-8")
        found = in_child("micro", path)
        read = Graph.from_fields(found["graph"])
        header.write_text(header_text(read, metadata, found["arena"], methods_of(read)), encoding="utf-8")
        program.write_text(program_text(read, include), encoding="utf-8")

    def open(
        self,
        path: Path,
        threads: int = 1,
        task: str | None = CLASSIFICATION,
        feed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Exported:
        """In the interpreter for microcontrollers, as this machine runs it: slow, and the same to the bit."""
        self.check_runtime()
        found = in_child("micro", path)
        graph = Graph.from_fields(found["graph"])
        metadata = Metadata.of_file(graph.metadata.get(KEY), path, task, feed, signature(graph))
        data = litert_runtime.array_in(path)
        run = litert_runtime.micro_running(litert_runtime.micro(data, found["arena"], path), graph)
        run = in_parts(run, graph.places[graph.inputs[0]].shape[0])
        files = tuple(file for file in self.files(path) if file.is_file())
        return Exported(path=path, runtime=self.runtime, metadata=metadata, run=run, files=files)

    def listing(self, path: Path) -> Listing:
        """The constants in the array, and what the interpreter needs of memory."""
        found = in_child("micro", path)
        graph = Graph.from_fields(found["graph"])
        check_description(graph.metadata.get(KEY), path)
        flash, arena = len(litert_runtime.array_in(path)), found["arena"]
        notes = (*notes_of(graph), room(flash, arena))
        return Listing(kind="micro", lines=lines_of(graph), num_bytes=flash, notes=notes, flash=flash, ram=arena,
                       peak=graph.peak()[1])  # fmt: skip


MICRO = Micro()


def methods_of(graph: Graph) -> list[str]:
    """Names of the resolver's methods for the operations of a graph. `InputError` for one that it lacks."""
    for item in graph.operations:
        if item.kind not in _KINDS.split():
            raise InputError(
                f"tflite-micro has no {item.kind.lower()}, which stands at {item.name}: write that layer with other "
                "operations, or export the net with --format litert"
            )
    return sorted({f"Add{_SPELLED.get(item.kind) or _camel(item.kind)}" for item in graph.operations})


def _camel(kind: str) -> str:
    return "".join(word.capitalize() for word in re.sub("_2D", "_2d", kind).split("_")).replace("2d", "2D")
