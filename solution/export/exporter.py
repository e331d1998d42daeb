"""Make an exported file, prove that it computes what its net computes, and only then leave it behind."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solution import checkpoint
from solution.budget import Budget
from solution.compress.parametrized import materialized
from solution.contracts import InputError
from solution.data.loaders import Data, Loaders
from solution.evaluate.classify import predictor
from solution.export import files
from solution.export.config import WEB, ExportConfig
from solution.export.int8 import quantized, quantized_file
from solution.export.pace import medians_ms, verdict
from solution.export.packed import packed
from solution.export.packed.container import contents
from solution.export.parity import COMPARED, Parity, compare, judged, spread, tolerance_for
from solution.export.web import write_page
from solution.formats.base import CALIBRATED, Format, Listing
from solution.formats.exported import Exported, Metadata
from solution.input_spec import InputSpec
from solution.runtime import check_writable, written_whole

_CALIBRATION_IMAGES = 256
_ADVICE = {
    "fp32": "try another format",
    "fp16": "try fp32, or another format",
    "int8": "try a float form, or quantize the net in a recipe",
}


def export(
    net: nn.Module | str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    example: Tensor | None = None,
    log: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Write a net in the format of a runtime, prove that the file computes what the net computes, return its path.

    net      a checkpoint, a packed file, or a net in memory: a classifier of images
    format   packed, or one of `solution.registry.FORMATS`
    example  of a net in memory: normalized images (B, C, S, S), with which its file is compared when there are no data
    options  precision, data, calibration_images, max_loss, as in `ExportConfig`; of a net in memory also classes (none:
             the file numbers them), mean and std (none: 0 and 1, pictures scaled to [0, 1])
    """
    place = None if out is None else Path(out)
    about = {name: tuple(options.pop(name)) for name in ("classes", "mean", "std") if name in options}
    if not isinstance(net, nn.Module):
        if about or example is not None:
            raise InputError(f"{net} is a file, which holds how to feed it: leave out example, classes, mean, std")
        return _timed(ExportConfig(file=Path(net), format=format, out=place, **options), log)
    if example is None or example.dim() != 4 or example.shape[2] != example.shape[3]:
        raise InputError("a net in memory needs square images: example=torch.zeros(1, 3, 224, 224)")
    config = ExportConfig(format=format, out=place, **options)
    channels = example.shape[1]
    plain: dict[str, Any] = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    header = checkpoint.header_of(net, size=example.shape[2], **(plain | about))
    return _timed(config, log, (net, header), example)


def _timed(
    config: ExportConfig,
    log: Callable[[str], None],
    loaded: tuple[nn.Module, checkpoint.Header] | None = None,
    example: Tensor | None = None,
) -> Path:
    path = make(config, log, loaded, example)
    if line := pace(config, loaded):
        log(line)
    return path


def pace(config: ExportConfig, loaded: tuple[nn.Module, checkpoint.Header] | None = None) -> str:
    """A line on how the int8 file that `make` wrote runs beside its fp32 form on this machine; "" for other files.

    Nothing is timed for microcontrollers and browsers, which are other machines.
    """
    if not config.precision.startswith("int8") or config.format == WEB or config.target.on_chips:
        return ""
    whole = files.open_file(config.path, task=None, checked=True)
    if loaded is None and config.file is not None and files.format_of(config.file) is not None:
        return verdict(*medians_ms(whole, files.open_file(config.file, task=None)))
    with tempfile.TemporaryDirectory() as folder:
        plain = replace(config, precision="fp32", out=Path(folder, f"plain{config.suffix}"))
        return verdict(*medians_ms(whole, files.open_file(write_unproven(plain, loaded), task=None, checked=True)))


def make(
    config: ExportConfig,
    log: Callable[[str], None] = print,
    loaded: tuple[nn.Module, checkpoint.Header] | None = None,
    example: Tensor | None = None,
) -> Path:
    """Write the file, log how it compares with its net, and return its path. `InputError`, and no file, if it fails.

    loaded   a net in memory and its header, in place of the config's file
    example  of a net in memory, as in `export`
    """
    for file in config.files:
        check_writable(file)
    if config.format == WEB:
        return _page(config, log, loaded, example)
    if loaded is None and config.file is not None and (own := files.format_of(config.file)) is not None:
        return _requantized(config, own, log)
    net, header = loaded or _loaded(config)
    if config.is_packed:
        return _packed(config, net, header, log)
    if reason := COMPARED[header.task].not_alone:
        raise InputError(f"{config.file or 'this net'} {reason}")
    loaders = None if loaded and config.data is None else _loaders(config, header)
    if loaders is not None and not header.classes and count_outputs(net, header) == len(loaders.info.classes):
        header = replace(header, classes=loaders.info.classes)  # nobody named them yet
    make_proven(config, net, header, loaders, log, example)
    return config.path


def _page(
    config: ExportConfig,
    log: Callable[[str], None],
    loaded: tuple[nn.Module, checkpoint.Header] | None,
    example: Tensor | None,
) -> Path:
    """The folder of a page, whose net is proven as any ONNX file is."""
    net, new = config.files[0], not config.path.exists()
    try:
        make(replace(config, format="onnx", out=net), log, loaded, example)
    except BaseException:
        if new:
            with contextlib.suppress(OSError):  # it was not made, or holds what others wrote meanwhile
                config.path.rmdir()
        raise
    write_page(config.path, files.open_file(net, checked=True).metadata)
    log(f"in {config.path} type: npm install --ignore-scripts, then: npm start")
    return config.path


def _requantized(config: ExportConfig, own: Format, log: Callable[[str], None]) -> Path:
    """The int8 form of an ONNX file of anyone, by the runtime's quantizer, proven against the file itself."""
    if own.name != "onnx" or config.format != "onnx" or config.precision != "int8" or config.file is None:
        raise InputError(
            f"{config.file} is an exported net: what can be made of one is int8 of an .onnx file, with --format onnx "
            "--precision int8; for all else name the net that it is of"
        )
    target: Any = config.target
    before = files.open_file(config.file)
    loaders = _loaders(config, before.metadata)
    classes = before.metadata.classes
    if not classes and before.metadata.outputs == len(loaders.info.classes):
        classes = loaders.info.classes
    graph = quantized_file(target, target.read(before.path), before, loaders, log)
    metadata = replace(before.metadata, classes=classes, precision="int8")
    with written_whole(config.path) as temporary:
        target.write(graph, metadata, temporary)
        exported = files.open_file(temporary, checked=True)
        tolerance = COMPARED[metadata.task].tolerance("int8")
        if config.max_loss is not None:
            tolerance = replace(tolerance, drop=config.max_loss)
        parity = compare(before, exported, spread(loaders.opened("val"), COMPARED[metadata.task].num_images), tolerance)
        parity = judged(parity, before, exported, loaders) if classes else parity
        log(str(parity) if parity.after else f"{parity}\n{_not_judged(loaders)}")
        _check(config, parity)
    return config.path


def make_proven(
    config: ExportConfig,
    net: nn.Module,
    header: checkpoint.Header,
    loaders: Loaders | None,
    log: Callable[[str], None],
    example: Tensor | None = None,
) -> Parity:
    """Write the file of a net that is already loaded, proven on `loaders`, else `example`; return how it compares."""
    plain = _plain(net)
    metadata = _metadata(plain, header, config)
    if config.precision in CALIBRATED:
        graph = quantized(config.target, plain, metadata, loaders, log)
    else:
        graph = config.target.floating(plain, _blank(metadata, 2), config.precision)
    with written_whole(config.path) as temporary:
        _, *partners = config.target.files(temporary)
        try:
            config.target.write(graph, metadata, temporary)
            exported = files.open_file(temporary, task=metadata.task, checked=True)
            parity = _proven(config, plain, header, exported, (loaders, example))
            log(str(parity) if parity.after else f"{parity}\n{_not_judged(loaders)}")
            _check(config, parity)
            _check_room(config, config.target.listing(temporary), log)
            for partner, place in zip(partners, config.files[1:], strict=True):  # the main file never stands alone
                partner.replace(place)
        finally:
            for partner in partners:
                partner.unlink(missing_ok=True)
    return parity


def write_unproven(config: ExportConfig, loaded: tuple[nn.Module, checkpoint.Header] | None = None) -> Path:
    """Write the file, fp32 or fp16, compared with nothing."""
    net, header = loaded or _loaded(config)
    net = _plain(net)
    metadata = _metadata(net, header, config)
    config.path.parent.mkdir(parents=True, exist_ok=True)
    config.target.write(config.target.floating(net, _blank(metadata, 2), config.precision), metadata, config.path)
    return config.path


def _loaded(config: ExportConfig) -> tuple[nn.Module, checkpoint.Header]:
    if config.file is None:
        raise InputError("there is nothing to export: name a checkpoint")
    return files.load(config.file)


def _plain(net: nn.Module) -> nn.Module:
    """A copy without parametrizations, for inference on the CPU alone."""
    return copy.deepcopy(materialized(net)).cpu().eval().requires_grad_(False)


def _metadata(net: nn.Module, header: checkpoint.Header, config: ExportConfig) -> Metadata:
    """The description that goes into the file. `InputError` unless the net maps images to logits."""
    metadata = Metadata.of(header, precision=config.precision, task=header.task, outputs=len(header.classes))
    # a detector's corners are no classes
    found = count_outputs(net, header) - metadata.num_outputs + len(header.classes)
    if header.classes and found != len(header.classes):
        raise InputError(f"{len(header.classes)} classes are named, and the net has {found} outputs")
    return replace(metadata, outputs=found)


def count_outputs(net: nn.Module, header: checkpoint.Header) -> int:
    """Size of the second dimension of what `net` returns. `InputError` unless it maps images to logits."""
    images = _blank(header, 2)
    try:
        outputs = net(images)
    except Exception as error:  # whatever a net that wants something else makes of images
        what, _, _ = str(error).partition("\n")
        raise InputError(
            f"the net does not take images {tuple(images.shape)} ({what}): it cannot be exported"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.dim() < 2:
        raise InputError("only a net that maps images (B, C, H, W) to logits (B, classes) can be exported")
    return outputs.shape[1]


def _blank(metadata: InputSpec, count: int) -> Tensor:
    return torch.zeros(count, len(metadata.mean), metadata.size, metadata.size)


def _loaders(config: ExportConfig, header: InputSpec) -> Loaders:
    """The splits that the export needs. `InputError` when they are of other classes, or too few to calibrate on."""
    wanted = config.calibration_images
    data = Data(path=config.data, calibration_images=wanted or _CALIBRATION_IMAGES).fed_as(header)
    splits = ("val", "dev", "calibration") if config.precision in CALIBRATED else ("val",)
    loaders = data.open(splits=splits)
    if wanted and config.precision in CALIBRATED and loaders.num_images("calibration") < wanted:
        raise InputError(
            f"{wanted} calibration images are wanted, and {config.data} has "
            f"{loaders.num_images('calibration')}: set fewer"
        )
    return loaders


def _proven(
    config: ExportConfig,
    net: nn.Module,
    header: checkpoint.Header,
    exported: Exported,
    proof: tuple[Loaders | None, Tensor | None],
) -> Parity:
    """How the file compares with its net, on the data or the example of `proof`."""
    loaders, example = proof
    compared, tolerance = COMPARED[header.task], tolerance_for(net, config.precision, header.task)
    if config.max_loss is not None:
        tolerance = replace(tolerance, drop=config.max_loss)
    exported(_blank(exported.metadata, 1))  # a batch of one must do, too
    predict = predictor(net)
    images = example if loaders is None or loaders.val is None else spread(loaders.val, compared.num_images)
    if images is None:
        raise InputError("there is nothing to compare the file with: name photos with --data, or data=")
    parity = compare(predict, exported, images, tolerance, compared)
    if loaders is None or loaders.val is None or not header.classes:
        return parity
    # A recipe that exports its nets has just judged them.
    before = header.figures["quality"] if compared.not_alone else None
    return judged(parity, predict, exported, loaders, before)


def _not_judged(loaders: Loaders | None) -> str:
    why = "no data are named" if loaders is None else "the net's classes have no names"
    return f"quality is not judged: {why}"


def _check(config: ExportConfig, parity: Parity) -> None:
    if not parity.failures:
        return
    allow = ", or allow more with --max-loss" if parity.failures == (parity.compared.task.title,) else ""
    raise InputError(
        f"the {config.format} file in {config.precision} fails parity ({', '.join(parity.failures)}) and was not "
        f"kept: {_ADVICE[config.precision.partition('_')[0]]}{allow}"
    )


def _check_room(config: ExportConfig, found: Listing, log: Callable[[str], None]) -> None:
    """Say what the file takes; `InputError` when that is more than a microcontroller has."""
    for note in found.notes:
        log(note)
    for name, taken in (("flash", found.flash), ("ram", found.ram)):
        wanted = getattr(config, name)
        if wanted is None or taken is None:
            continue
        limit = Budget.of(wanted, "bytes", name).limit(taken)
        if taken > limit:
            what = f"most of it at {found.peak}" if name == "ram" else f"most of it in {found.largest()}"
            cure = "a smaller input side, or fewer channels there" if name == "ram" else "fewer channels or clusters"
            raise InputError(
                f"the net needs {taken:,} bytes of {name}, {taken - limit:,.0f} more than {wanted}, {what}: it was not "
                f"kept; prune it to {cure}"
            )


def _packed(config: ExportConfig, net: nn.Module, header: checkpoint.Header, log: Callable[[str], None]) -> Path:
    if config.precision != "fp32":
        raise InputError(
            f"a packed file holds just what the net holds, so there is no {config.precision} of it: quantize the net "
            "in a recipe, then pack its checkpoint"
        )
    with written_whole(config.path) as temporary:
        packed.save(temporary, net, header)
        _check_same(net.state_dict(), packed.unpacked(contents(temporary)), config.path)
    log(f"all {len(net.state_dict())} tensors read back bit by bit")
    return config.path


def _check_same(wanted: dict[str, Tensor], got: dict[str, Tensor], path: Path) -> None:
    for name, tensor in wanted.items():
        if not torch.equal(_bytes(tensor), _bytes(got[name])):
            raise InputError(f"{path} was not kept: {name} does not read back as it was written")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
