"""Make an exported file, prove that it says what its net says, and only then leave it behind."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solution import checkpoint
from solution.compress.parametrized import materialized
from solution.compress.quantization.activations import keep_inputs_float
from solution.contracts import DETECTION, Batches, InputError
from solution.data.loaders import Data, Loaders
from solution.evaluate.classify import Predict, predictor
from solution.export import detecting, files, onnx_file, openvino_file, packed, pt2_file
from solution.export.exported import Exported
from solution.export.metadata import Metadata
from solution.export.parity import TOLERANCES, Parity, compare, tolerance_for
from solution.losses.distillation import divergence
from solution.runtime import check_writable, written_whole

FORMATS = {"onnx": onnx_file, "openvino": openvino_file, "pt2": pt2_file}
PACKED = "packed"
PRECISIONS = tuple(TOLERANCES)
_CALIBRATION_IMAGES = 256
_NAMES_SHOWN = 3
_ADVICE = {
    "fp32": "try another format",
    "fp16": "try fp32, or another format",
    "int8": "try fp16, or quantize the net in a recipe",
}
_CLEARLY_NEARER = 0.002
"""A choice that keeps more layers in float must come so much nearer to the net's answers, in nats."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export.

    file                a checkpoint or a packed file
    format              packed, onnx, openvino or pt2
    precision           fp32, fp16 or int8
    out                 where to; None names it after `file`
    data                the data set that proves it; None takes the demo's default
    calibration_images  training images that int8 is calibrated on; None takes up to 256
    f1_drop             macro F1 that may be lost on val; None takes the tolerance of the precision
    """

    file: Path
    format: str
    precision: str = "fp32"
    out: Path | None = None
    data: str | None = None
    calibration_images: int | None = None
    f1_drop: float | None = None

    def __post_init__(self) -> None:
        if self.format not in (PACKED, *FORMATS):
            raise InputError(f"format must be one of {', '.join((PACKED, *FORMATS))}, got {self.format!r}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.calibration_images is not None and self.calibration_images < 1:
            raise InputError(f"calibration images must be at least 1, got {self.calibration_images}")
        if self.out is not None and self.out.suffix != self.suffix:
            raise InputError(f"a file of the {self.format} format ends in {self.suffix}, got {self.out}")

    @property
    def suffix(self) -> str:
        """How the file's name ends."""
        return packed.SUFFIX if self.format == PACKED else FORMATS[self.format].SUFFIX

    @property
    def path(self) -> Path:
        """Where the file goes."""
        if self.out is not None:
            return self.out
        precision = "" if self.precision == "fp32" else f".{self.precision}"
        return self.file.with_name(self.file.name.partition(".")[0] + precision + self.suffix)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are written."""
        apart = (self.path.with_suffix(openvino_file.WEIGHTS),) if self.format == "openvino" else ()
        return (self.path, *apart)


def export(file: str | Path, format: str, out: str | Path | None = None, **options: Any) -> Path:
    """Write a checkpoint in the format of a runtime, prove that it computes what the net computes, return its path.

    format   packed, onnx, openvino or pt2
    options  precision, data, calibration_images, f1_drop, as in `ExportConfig`
    """
    out = None if out is None else Path(out)
    return make(ExportConfig(file=Path(file), format=format, out=out, **options))


def make(config: ExportConfig, log: Callable[[str], None] = print) -> Path:
    """Write the file, say how it compares with its net, and return its path. `InputError`, and no file, if it fails."""
    for file in config.files:
        check_writable(file)
    net, header = files.load(config.file)
    if config.format == PACKED:
        return _packed(config, net, header, log)
    if header.task == DETECTION:
        raise InputError(f"{config.file} is a detector: its recipe exports it, with pictures that have boxes")
    make_proven(config, net, header, _loaders(config, header), log)
    return config.path


def make_proven(
    config: ExportConfig, net: nn.Module, header: checkpoint.Header, loaders: Loaders, log: Callable[[str], None]
) -> Parity:
    """Write the file of a net that is already loaded, proven on `loaders`, and return how it compares."""
    net, metadata = _plain(net), Metadata.of(header, config.precision)
    graph = (
        _quantized(config, net, metadata, loaders, log)
        if config.precision == "int8"
        else _floating(config, net, metadata)
    )
    with written_whole(config.path) as temporary:
        try:
            FORMATS[config.format].write(graph, metadata, temporary)
            exported = files.open_file(temporary, task=metadata.task)
            parity = _prove(config, net, header, exported, loaders, log)
            _move_partners(exported, config.path)
        finally:
            temporary.with_suffix(openvino_file.WEIGHTS).unlink(missing_ok=True)
    return parity


def write_unproven(config: ExportConfig) -> Path:
    """Write the file, fp32 or fp16, compared with nothing."""
    net, header = files.load(config.file)
    net, metadata = _plain(net), Metadata.of(header, config.precision)
    config.path.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[config.format].write(_floating(config, net, metadata), metadata, config.path)
    return config.path


def _plain(net: nn.Module) -> nn.Module:
    """A copy without parametrizations, for inference alone."""
    return copy.deepcopy(materialized(net)).eval().requires_grad_(False)


def _loaders(config: ExportConfig, header: checkpoint.Header) -> Loaders:
    """The splits that the wish needs. `InputError` when they are of other classes, or too few to calibrate on."""
    asked = config.calibration_images
    data = Data(path=config.data, size=header.size, calibration_images=asked or _CALIBRATION_IMAGES)
    classes = data.info().classes
    if classes != header.classes:
        raise InputError(f"{config.file} knows {', '.join(header.classes)}; the data have {', '.join(classes)}: "
                         "name the data that it was trained on with --data")  # fmt: skip
    splits = ("val", "dev", "calibration") if config.precision == "int8" else ("val",)
    loaders = data.open(splits=splits, normalization=(header.mean, header.std))
    if asked and config.precision == "int8" and loaders.num_images("calibration") < asked:
        raise InputError(
            f"{asked} calibration images were asked for, and {config.data} has {loaders.num_images('calibration')}: "
            "ask for fewer"
        )
    return loaders


def _floating(config: ExportConfig, net: nn.Module, metadata: Metadata) -> Any:
    return FORMATS[config.format].floating(net, _blank(metadata, 2), config.precision)


def _blank(metadata: Metadata, count: int) -> Tensor:
    return torch.zeros(count, len(metadata.mean), metadata.size, metadata.size)


def _quantized(
    config: ExportConfig, net: nn.Module, metadata: Metadata, loaders: Loaders, log: Callable[[str], None]
) -> Any:
    """The int8 graph that answers most like the net on the dev split, of those with more and more layers in float.

    Macro F1 would leave that to chance: rounding turns as many answers right as wrong.
    """
    net = copy.deepcopy(net)
    if keep_inputs_float(net):
        log("inputs that the net rounds itself are rounded by the int8 graph alone")  # or they would be, twice
    images = [image[None].contiguous() for batch, _ in loaders.calibration for image in batch]  # each (1, 3, S, S)
    log(f"int8 is calibrated on {len(images)} images of train")
    if metadata.task == DETECTION:
        return detecting.quantized(FORMATS[config.format], net, images)
    if loaders.dev is None:
        raise InputError("int8 decides on the dev split which layers stay in float, and these data have none")
    kind = FORMATS[config.format]
    start = kind.base(net, torch.cat([images[0], images[0]]))
    answers = _answers(predictor(net), loaders.dev)
    best, nearest = None, math.inf
    for names, layers in _choices(net, kind, start):
        graph = kind.quantized(copy.deepcopy(start), images, layers)
        away = _away(config, graph, metadata, loaders.dev, answers)
        log(f"int8, in float {_listed(names)}: {away:.4f} nats from the net's answers on the dev split")
        if away < nearest - _CLEARLY_NEARER:
            best, nearest = graph, away
    if best is None:
        raise InputError("int8 answers with NaN or infinity: export with fp16, or quantize the net in a recipe")
    return best


def _choices(net: nn.Module, kind: Any, start: Any) -> Iterator[tuple[list[str], list[str]]]:
    """What stays in float, by the net's names and by the graph's. Depthwise layers are slower in int8 than in float."""
    names, layers = pt2_file.depthwise(net), kind.depthwise(start)
    yield names, layers
    yield (
        list(dict.fromkeys([*names, *pt2_file.first_and_last_layers(net)])),
        list(dict.fromkeys([*layers, *kind.first_and_last_layers(start)])),
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN]) or "nothing"
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _away(config: ExportConfig, graph: Any, metadata: Metadata, batches: Batches, answers: Tensor) -> float:
    """How far the graph lies in its runtime from `answers` (N, num_classes), in nats."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"choice{config.suffix}")
        FORMATS[config.format].write(graph, metadata, path)
        return float(divergence(_answers(files.open_file(path), batches), answers))


def _answers(predict: Predict, batches: Batches) -> Tensor:
    with torch.inference_mode():
        return torch.cat([predict(images) for images, _ in batches])


def _prove(
    config: ExportConfig,
    net: nn.Module,
    header: checkpoint.Header,
    exported: Exported,
    loaders: Loaders,
    log: Callable[[str], None],
) -> Parity:
    tolerance = tolerance_for(net, config.precision)
    if config.f1_drop is not None:
        tolerance = replace(tolerance, f1_drop=config.f1_drop)
    exported(_blank(exported.metadata, 1))  # a batch of one must do, too
    if exported.metadata.task == DETECTION:
        parity = detecting.compare(predictor(net), exported, loaders, header.figures["quality"], config.precision)
    else:
        parity = compare(predictor(net), exported, loaders.val, tolerance)
    log(str(parity))
    if parity.failures:
        allow = ", or allow more with --max-loss" if parity.failures == ("macro F1",) else ""
        raise InputError(
            f"the {config.format} file in {config.precision} fails parity ({', '.join(parity.failures)}) and was not "
            f"kept: {_ADVICE[config.precision]}{allow}"
        )
    return parity


def _move_partners(exported: Exported, path: Path) -> None:
    """Files that belong to the main one go first, so that it never stands alone."""
    for file in exported.files:
        if file != exported.path:
            file.replace(path.with_suffix(file.suffix))


def _packed(config: ExportConfig, net: nn.Module, header: checkpoint.Header, log: Callable[[str], None]) -> Path:
    if config.precision != "fp32":
        raise InputError(
            f"a packed file holds just what the net holds, so there is no {config.precision} of it: quantize the net "
            "in a recipe, then pack its checkpoint"
        )
    with written_whole(config.path) as temporary:
        packed.save(temporary, net, header)
        _check_same(net.state_dict(), packed.load(temporary)[0].state_dict(), config.path)
    log(f"all {len(net.state_dict())} tensors read back bit by bit")
    return config.path


def _check_same(wanted: dict[str, Tensor], got: dict[str, Tensor], path: Path) -> None:
    for name, tensor in wanted.items():
        if not torch.equal(_bytes(tensor), _bytes(got[name])):
            raise InputError(f"{path} was not kept: {name} does not read back as it was written")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
