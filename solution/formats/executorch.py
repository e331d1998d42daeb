"""ExecuTorch: one .pte file for one image at a time, its layers run by XNNPACK."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.formats.base import Format, Listing, check_description
from solution.formats.channels_last import lacks, traced
from solution.formats.child import in_child
from solution.formats.executorch_runtime import EXTRA, library, loaded
from solution.formats.exported import KEY, Exported, Metadata, in_parts
from solution.formats.litert_runtime import quiet
from solution.runtime import needed


class ExecuTorch(Format):
    """A graph is a ``torch.export.ExportedProgram``; layers are called by the net's own paths."""

    name = "executorch"
    suffix = ".pte"
    runtime = "executorch"
    libraries = ("executorch",)
    precisions = ("fp32", "int8")

    def check_runtime(self) -> None:
        """ExecuTorch can be imported."""
        library()

    def base(self, net: nn.Module, example: Tensor) -> nn.Module:
        """The net itself."""
        return net

    def floating(self, net: nn.Module, example: Tensor, precision: str) -> Any:
        """`net`, traced for one image."""
        return traced(net, example)

    def quantized(self, base: nn.Module, images: list[Tensor], float_layers: Sequence[str], fine_outputs: bool) -> Any:
        """By XNNPACK's quantizer: weights per channel, one step for what flows."""
        with needed("int8 in the executorch format", EXTRA), quiet():
            from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
        quantizer = xnnpack_quantizer.XNNPACKQuantizer().set_global(config)
        with quiet():
            observed = prepare_pt2e(traced(base, images[0]).module(), quantizer)
            for image in images:
                observed(image)
            return traced(convert_pt2e(observed), images[0])

    def depthwise(self, base: nn.Module) -> list[str]:
        """None: XNNPACK's quantizer leaves no layer in float."""
        return []

    def first_and_last_layers(self, base: nn.Module) -> list[str]:
        """None, for the same reason."""
        return []

    def write(self, graph: Any, metadata: Metadata, path: Path) -> None:
        """One file; the description is a method that gives it."""
        with needed("the executorch format", EXTRA), quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

        texts = {KEY: metadata.to_text()}
        try:
            with quiet():
                edge = to_edge_transform_and_lower(graph, partitioner=[XnnpackPartitioner()], constant_methods=texts)
                path.write_bytes(edge.to_executorch().buffer)
        except Exception as error:  # whatever the compiler makes of an operation that it lacks
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if found := re.search(r"Operator torch\._ops\.(aten\.[\w.]+) is not", reason):
                raise InputError(lacks(graph, found[1], self.suffix)) from error
            raise InputError(f"this net cannot be written as .pte ({reason}): export it as ONNX") from error

    def open(
        self,
        path: Path,
        threads: int = 1,
        task: str | None = CLASSIFICATION,
        feed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Exported:
        """In ExecuTorch, on as many threads as it takes; a child process has run the file first."""
        self.check_runtime()
        found = in_child("executorch", path)
        ports = [[tuple(shape) for shape in shapes] for shapes in found["shapes"]]
        metadata = Metadata.of_file(found["texts"].get(KEY), path, task, feed, ports)
        if not found["floating"]:
            raise InputError(f"{path} takes numbers that are no float32: only nets of float images run here")
        program, forward = loaded(path)

        def run(images: Any, _kept: Any = program) -> Any:  # the method reads what the program holds
            torch.set_num_threads(threads)
            try:
                return forward.call([torch.from_numpy(images)])[0].numpy().copy()
            except RuntimeError as error:
                raise InputError(f"{path} does not run in ExecuTorch ({error}): export it again") from error

        with quiet():  # the first call prints what it finds out about the processor
            run(np.zeros(ports[0][0], np.float32))
        whole = in_parts(run, ports[0][0][0])
        return Exported(path=path, runtime=self.runtime, metadata=metadata, run=whole, files=(path,))

    def listing(self, path: Path) -> Listing:
        """Its methods: weights lie inside what XNNPACK alone reads."""
        found = in_child("executorch", path)
        check_description(found["texts"].get(KEY), path)
        notes = (f"methods: {', '.join(found['methods'])}; weights are packed for XNNPACK and cannot be listed",)
        return Listing(kind="ExecuTorch", lines=(), num_bytes=path.stat().st_size, notes=notes)


EXECUTORCH = ExecuTorch()
