"""LiteRT: one .tflite file for one image at a time, channels last, run by LiteRT on phones and small boards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.formats import litert_runtime
from solution.formats.base import Format, Line, Listing, check_description
from solution.formats.channels_last import channels_last, lacks, traced
from solution.formats.child import in_child
from solution.formats.exported import KEY, Exported, Metadata, in_parts
from solution.formats.litert_runtime import quiet
from solution.formats.ranges import Ranges
from solution.formats.same_rounding import round_alike
from solution.formats.tflite import EXTRA, Graph, graph_of, name_layers, parsed, role_of
from solution.formats.tflite_writing import float_ends, packed
from solution.runtime import needed


class LiteRt(Format):
    """A graph is the file's own object, a ``ModelT``; layers are called by the net's own paths."""

    name = "litert"
    suffix = ".tflite"
    runtime = "litert"
    libraries = ("ai-edge-litert",)
    precisions = ("fp32", "fp16", "int8", "int8_full", "int8_dynamic")

    def check_runtime(self) -> None:
        """LiteRT can be imported."""
        with needed(f"the runtime {self.runtime}", EXTRA):
            import ai_edge_litert.interpreter  # noqa: F401

    def base(self, net: nn.Module, example: Tensor) -> Any:
        """`net` in fp32 for one image (1, H, W, C). `InputError` that names the layer which the format lacks."""
        with needed("the litert format", EXTRA), quiet():
            import litert_torch
        program = traced(net, example)
        image = example[:1].permute(0, 2, 3, 1).contiguous()
        wrapped = litert_torch.to_channel_last_io(channels_last(program), args=[0])
        try:
            with quiet():
                data = litert_torch.convert(wrapped, (image,)).model_content()
        except Exception as error:  # whatever the compiler makes of an operation that it lacks
            raise InputError(_lacking(error, program)) from error
        model = parsed(data, "the converted net")
        layers = [(path, module.weight.detach().numpy()) for path, module in net.named_modules()
                  if isinstance(module, nn.Conv2d | nn.Linear)]  # fmt: skip
        name_layers(model, layers)
        return model

    def floating(self, net: nn.Module, example: Tensor, precision: str) -> Any:
        """In fp16 weights are stored in half precision and widened when the file is loaded; in int8_dynamic in int8,
        and what flows is rounded at run time.
        """
        model = self.base(net, example)
        if precision == "fp32":
            return model
        with needed(f"{precision} in the litert format", EXTRA), quiet():
            from ai_edge_quantizer import algorithm_manager, qtyping, recipe, recipe_manager
        if precision == "int8_dynamic":
            return _quantized(model, recipe.dynamic_wi8_afp32())
        manager = recipe_manager.RecipeManager()
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        )
        names = qtyping.TFLOperationName
        for kind in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED):
            manager.add_quantization_config(".*", kind, config, algorithm_manager.AlgorithmName.FLOAT_CASTING)
        return _quantized(model, manager.get_quantization_recipe())

    def quantized(self, base: Any, images: list[Tensor], float_layers: Sequence[str], fine_outputs: bool) -> Any:
        """By LiteRT's quantizer, with ranges of this project's: of least rounding error over all images.

        The quantizer's own ranges, a moving average of each image's extremes, took 3 points of macro F1 from a
        ShuffleNet. With `fine_outputs` ranges are the extremes.
        """
        with needed("int8 in the litert format", EXTRA), quiet():
            from ai_edge_quantizer import recipe
        data = packed(base, {}, names=True)
        graph = graph_of(parsed(data, "the converted net"), "the converted net")
        with quiet():
            found = Ranges.watched(data, graph, (image[0].numpy() for image in images))
        limits = found.extremes() if fine_outputs else found.nearest()
        floats, static = parsed(data, "the converted net"), recipe.static_wi8_ai8()
        made = _quantized(floats, static, limits)
        if factors := rescaled(graph_of(made, "the quantized net")):
            limits |= {name: (factor * limits[name][0], factor * limits[name][1])
                       for name, factor in factors.items() if name in limits}  # fmt: skip
            made = _quantized(floats, static, limits)
        round_alike(made, floats, found.means())
        return made

    def depthwise(self, base: Any) -> list[str]:
        """None: LiteRT's are as fast in int8, and a graph all of integers needs no changing to and fro."""
        return []

    def first_and_last_layers(self, base: Any) -> list[str]:
        """None, for the same reason."""
        return []

    def write(self, graph: Any, metadata: Metadata, path: Path) -> None:
        """One file. int8 has inputs and outputs in float, int8_full in int8."""
        if metadata.precision == "int8":
            float_ends(graph)
        path.write_bytes(packed(graph, {KEY: metadata.to_text()}))

    def open(
        self,
        path: Path,
        threads: int = 1,
        task: str | None = CLASSIFICATION,
        feed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Exported:
        """In LiteRT on the CPU, one image after the other; a child process has run the file first."""
        self.check_runtime()
        graph = Graph.from_fields(in_child("litert", path)["graph"])
        metadata = Metadata.of_file(graph.metadata.get(KEY), path, task, feed, signature(graph))
        given = graph.places[graph.inputs[0]]
        if not given.type.startswith("FLOAT") and given.scale is None:
            raise InputError(
                f"{path} takes {given.type.lower()} without a step: it needs float images, or integers with one"
            )
        run = litert_runtime.running(litert_runtime.litert(path.read_bytes(), threads, path), graph, path)
        run = in_parts(run, given.shape[0])
        return Exported(path=path, runtime=self.runtime, metadata=metadata, run=run, files=(path,))

    def listing(self, path: Path) -> Listing:
        """Its constants, by the operations that read them; also of a file of others."""
        graph, flash = Graph.from_fields(in_child("tflite", path)["graph"]), path.stat().st_size
        check_description(graph.metadata.get(KEY), path)
        try:
            arena = in_child("chip", path)["arena"]
        except InputError as error:
            notes, arena = (*notes_of(graph), f"on a microcontroller: {error}"), None
        else:
            notes = (*notes_of(graph), room(flash, arena))
        return Listing(kind="LiteRT", lines=lines_of(graph), num_bytes=flash, notes=notes, flash=flash, ram=arena,
                       peak=graph.peak()[1])  # fmt: skip


LITERT = LiteRt()
_JUST_BELOW = 1 - 2**-22
"""On a step a hair smaller every kernel rounds a half up."""


def signature(graph: Graph) -> tuple[list[tuple], list[tuple]]:
    """Shapes of inputs and outputs as `Metadata.check_signature` takes them: channels first."""
    inputs = [graph.places[index].shape for index in graph.inputs]
    turned = [
        (shape[0], shape[3], *shape[1:3]) if litert_runtime.is_channels_last(shape) else shape for shape in inputs
    ]
    return turned, [graph.places[index].shape for index in graph.outputs]


def lines_of(graph: Graph) -> tuple[Line, ...]:
    """One line for each constant."""
    names: dict[int, str] = {}
    for item in graph.operations:
        for position, index in enumerate(item.inputs):
            if index >= 0 and graph.places[index].constant:
                names.setdefault(index, f"{item.name}.{role_of(item.kind, position)}")
    found = ((name, graph.places[index]) for index, name in names.items())
    return tuple(Line.of(name, place.shape, place.num_bytes) for name, place in found)


def notes_of(graph: Graph) -> tuple[str, ...]:
    """Operations, and the activations' peak."""
    peak, where = graph.peak()
    return graph.summary(), f"activations: {peak:,} bytes at the most, at {where}"


def room(flash: int, arena: int) -> str:
    """What a microcontroller needs, in a line."""
    return f"flash: {flash:,} bytes of model; arena: {arena:,} bytes, measured by tflite-micro"


def _quantized(model: Any, recipe: Any, limits: dict[str, tuple[float, float]] | None = None) -> Any:
    """By LiteRT's quantizer. limits: {tensor: its least and its greatest number} for a static recipe."""
    from ai_edge_quantizer import quantizer

    graph = graph_of(model, "the converted net")
    ranks = {place.name: len(place.shape) for place in graph.places}
    given = {
        name: {"min": np.float32(low).reshape((1,) * ranks[name]), "max": np.float32(high).reshape((1,) * ranks[name])}
        for name, (low, high) in (limits or {}).items()
    }
    try:
        with quiet():
            result = quantizer.Quantizer(bytearray(packed(model, {}, names=True)), recipe).quantize(given or None)
    except Exception as error:  # the library's errors have no class of their own
        reason = str(error).splitlines()[0]
        raise InputError(f"LiteRT's quantizer refuses this net ({reason}): export it with fp16") from error
    return parsed(bytes(result.quantized_model), "the quantized net")


def rescaled(graph: Graph) -> dict[str, float]:
    """{tensor: factor on its step} with which every change from one step to another is by a multiple of 1/256.

    LiteRT's kernels for x86 and ARM round that factor to 1/256 and the reference kernels do not: steps that need no
    rounding cost less than 0.2 % of a range and keep both at the same integers.
    """
    factors: dict[float, float] = {}
    for item in graph.operations:
        before, after = graph.places[item.inputs[0]], graph.places[item.outputs[0]]
        if item.kind == "QUANTIZE" and before.type == after.type and before.scale and after.scale:
            ratio = before.scale * factors.get(before.scale, 1.0) / after.scale
            if ratio >= 1 / 256 and after.scale not in factors:
                factors[after.scale] = _JUST_BELOW * 256 * ratio / round(256 * ratio)
    return {place.name: factors[place.scale] for place in graph.places if place.scale in factors}


def _lacking(error: Exception, program: Any) -> str:
    """The message about a net that cannot be converted: the operation, and the layer in which it stands."""
    text = str(error)
    found = re.search(r"(?:Lowering not found: |call_function\[target=torch\.ops\.)(aten\.[\w.]+)", text)
    if not found:
        return f"this net cannot be written as .tflite ({text.splitlines()[0] if text else error!r}): export it as ONNX"
    return lacks(program, found[1], ".tflite")
