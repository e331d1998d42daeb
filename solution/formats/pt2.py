"""torch.export's .pt2: the net's graph and its weights, run by PyTorch without the net's own code."""

from __future__ import annotations

import copy
import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.formats.base import (
    Format,
    Line,
    Listing,
    check_description,
    depthwise_layers,
    first_and_last_layers,
)
from solution.formats.exported import KEY, Exported, Metadata
from solution.formats.pt2_check import checked
from solution.runtime import needed

_EXTRA = f"{KEY}.json"
_QUANTIZED = b"torch.ops.quantized_decomposed."


class Pt2(Format):
    """A graph is a ``torch.export.ExportedProgram``; layers are called by the net's own paths."""

    name = "pt2"
    suffix = ".pt2"
    runtime = "eager"
    libraries = ("torch",)

    def check_runtime(self) -> None:
        """PyTorch is always here."""

    def base(self, net: nn.Module, example: Tensor) -> nn.Module:
        """The net itself."""
        return net

    def floating(self, net: nn.Module, example: Tensor, precision: str) -> Any:
        """`net`, traced with `example` of more than one image; fp16 is widened at each call."""
        return _traced(Halved(net) if precision == "fp16" else net, example)

    def quantized(self, base: nn.Module, images: list[Tensor], float_layers: Sequence[str], fine_outputs: bool) -> Any:
        """By torchao. The graph rounds where an int8 runtime does, but computes in float: small and true, not fast."""
        with needed("int8 in the pt2 format"):
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
            from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
                X86InductorQuantizer,
                get_default_x86_inductor_quantization_config,
            )

        example = torch.cat([images[0], images[0]])
        quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
        for layer in float_layers:
            quantizer.set_module_name_qconfig(layer, None)
        observed = prepare_pt2e(_traced(base, example).module(), quantizer)
        for image in images:
            observed(image)
        return _traced(convert_pt2e(observed), example)

    def depthwise(self, base: nn.Module) -> list[str]:
        """The net's own paths."""
        return depthwise_layers(base)

    def first_and_last_layers(self, base: nn.Module) -> list[str]:
        """The net's own paths."""
        return first_and_last_layers(base)

    def write(self, graph: Any, metadata: Metadata, path: Path) -> None:
        """One file, without the inputs that the net was traced with and without places of this machine."""
        graph.example_inputs = None
        graph._guards_code = []  # code, which no reader should run; shapes are checked when the file is opened
        _strip(graph)
        # A file that is written by its name has that name, a temporary one, on every folder inside.
        whole = io.BytesIO()
        torch.export.save(graph, whole, extra_files={_EXTRA: metadata.to_text()})
        path.write_bytes(whole.getvalue())

    def open(
        self,
        path: Path,
        threads: int = 1,
        task: str | None = CLASSIFICATION,
        feed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Exported:
        """On PyTorch's threads. A file that holds a pickle, or anything else that could run code, is refused."""
        data = checked(path.read_bytes(), path)
        if _QUANTIZED in data:
            from torch.ao.quantization.fx import _decomposed  # noqa: F401 - it defines the operators of int8
        extra = {_EXTRA: ""}
        logger = logging.getLogger("torch.export")
        level = logger.level
        try:
            logger.setLevel(logging.CRITICAL)  # of a damaged graph it would print its own stack
            program = torch.export.load(io.BytesIO(data), extra_files=extra)
            net, shapes = program.module(), _shapes(program)
        except Exception as error:  # whatever a damaged graph makes of the reader
            raise InputError(f"{path} cannot be opened as a pt2 file ({error})") from error
        finally:
            logger.setLevel(level)
        metadata = Metadata.of_file(extra[_EXTRA], path, task, feed, shapes)

        def run(images: np.ndarray) -> np.ndarray:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                return net(torch.from_numpy(images)).numpy()

        return Exported(path=path, runtime=self.runtime, metadata=metadata, run=run, files=(path,))

    def listing(self, path: Path) -> Listing:
        """Its weights and constants; nothing is loaded."""
        try:
            with zipfile.ZipFile(path) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ValueError("it is compressed, which a pt2 file never is")
                places = [name for name in archive.namelist() if name.endswith(f"/extra/{_EXTRA}")]
                description = archive.read(places[0]).decode() if places else None
                configs = [name for name in archive.namelist() if name.endswith("_config.json")]
                entries = {name: json.loads(archive.read(name))["config"] for name in configs}
                lines = tuple(
                    _line(archive, config, name, entry)
                    for config, found in entries.items()
                    for name, entry in found.items()
                )
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} cannot be read as a pt2 file ({error})") from error
        check_description(description, path)
        return Listing(kind="pt2", lines=lines, num_bytes=path.stat().st_size)


PT2 = Pt2()


class Halved(nn.Module):
    """A net whose numbers are stored in float16 and widened at each call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor.half()).all():
                raise InputError(f"{name} holds numbers beyond float16's 65,504: export it with fp32")
        self.net = copy.deepcopy(net).half()

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) float32 to logits (B, num_classes) float32."""
        stored = dict(self.net.named_parameters()) | dict(self.net.named_buffers())
        wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()}
        return torch.func.functional_call(self.net, wide, (x,))


def _traced(net: nn.Module, example: Tensor) -> Any:
    """`net` with a dynamic batch. example: (B, 3, H, W), B above 1."""
    try:
        return torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # whatever the forward's own code does under tracing
        raise InputError(f"this net cannot be traced by torch.export: {str(error).splitlines()[0]}") from error


def _strip(program: Any) -> None:
    """Leave out tensors that nothing reads, such as weights that became int8, and what the tracer notes on every node
    for those who debug it: lines of the code that it saw, with the places where they lie.
    """
    places = [node for node in program.graph.nodes if node.op == "placeholder"]
    specs = program.graph_signature.input_specs
    unread = {
        spec.target: node
        for spec, node in zip(specs, places, strict=True)
        if spec.target in program.state_dict and not node.users
    }
    for target, node in unread.items():
        program.graph.erase_node(node)
        del program.state_dict[target]
    specs[:] = [spec for spec in specs if spec.target not in unread]
    for node in program.graph.nodes:
        node.meta = {name: value for name, value in node.meta.items() if name == "val"}


def _shapes(program: Any) -> tuple[list[tuple], list[tuple]]:
    """Shapes of the inputs and of the outputs."""
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    inputs, outputs = (
        [tuple(nodes[name].meta["val"].shape) for name in names]
        for names in (signature.user_inputs, signature.user_outputs)
    )
    return inputs, outputs


def _line(archive: zipfile.ZipFile, config: str, name: str, entry: dict) -> Line:
    sizes = entry["tensor_meta"]["sizes"]
    stored = archive.getinfo(f"{config.rpartition('/')[0]}/{entry['path_name']}")
    return Line.of(name, (size["as_int"] for size in sizes), stored.file_size)
