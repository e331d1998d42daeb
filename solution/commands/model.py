"""MODEL and the flags that say what a net of elsewhere is: the same words in every command."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.contracts import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from solution.checkpoint import Header
    from solution.data.loaders import Data, Loaders
    from solution.export.files import Model
    from solution.opening import ModelSource, OpenedModel

FORMS = ("a file of ours, timm:NAME, torchvision:NAME, pytorchcv:NAME, my_model.py:Net(width=32), or a folder of timm "
         "or Hugging Face")  # fmt: skip


def add_model_flags(parser: argparse.ArgumentParser, *, weights: bool = True, side: str = "--size") -> None:
    """--weights, --mean, --std, --size (or `side`), --resize, --classes, --channels, --new-head, --pretrained."""
    group = parser.add_argument_group("a net of elsewhere")
    if weights:
        group.add_argument("--weights", metavar="FILE", type=Path,
                           help=".pt, .pth, .bin, .ckpt or .safetensors for a net that MODEL names")  # fmt: skip
    group.add_argument("--pretrained", action="store_true", help="the library's published weights, downloaded")
    group.add_argument("--new-head", action="store_true", help="a fresh classifier, for photos of other classes")
    group.add_argument("--classes", metavar="FILE", type=Path, help="names of the outputs, one a line, in their order")
    group.add_argument(
        "--mean", metavar="R,G,B", help="of pictures scaled to 0..1 (default: the net's own, or ImageNet's)"
    )
    group.add_argument("--std", metavar="R,G,B", help="standard deviation of the same")
    group.add_argument(
        side, metavar="PIXELS", type=int, dest="size", help="side of the input (default: the net's own, or 224)"
    )
    group.add_argument("--resize", metavar='"WHAT [HOW]"',
                       help='"stretch" to the square, or the shorter side in pixels before the middle is cut out, such '
                       'as "256 bicubic"')  # fmt: skip
    group.add_argument(
        "--channels", choices=("rgb", "bgr"), default="rgb", help="the order that the net was trained with"
    )


def source_of(arguments: argparse.Namespace, name: str | None = None, num_classes: int | None = None) -> ModelSource:
    """What the flags say of MODEL, which is `name` or ``arguments.model``."""
    from solution.opening import ModelSource

    return ModelSource(
        name=str(arguments.model if name is None else name),
        weights=getattr(arguments, "weights", None),
        num_classes=num_classes,
        feed=_feed(arguments),
        new_head=arguments.new_head,
        pretrained=arguments.pretrained,
        bgr=arguments.channels == "bgr",
    )


def model_of(arguments: argparse.Namespace, name: str | None = None, log: Callable[[str], None] = print) -> Model:
    """MODEL for whatever needs no surgery: the path of a file of ours or an exported one, or what names another net.

    A net of elsewhere is opened once, so that what is wrong shows at once; `log` takes what was found out.
    """
    source = source_of(arguments, name)
    if source.own is not None:
        if source.weights is not None:
            raise InputError(f"{source.name} has weights of its own: leave --weights {source.weights} away")
        return source if source.feed else source.own
    for note in source.open().notes:
        log(note)
    return source


def models_of(arguments: argparse.Namespace, names: Sequence[str]) -> list[Model]:
    """`model_of` each; --weights is for those that are no files of ours."""

    sources = [source_of(arguments, name) for name in names]
    without = argparse.Namespace(**{**vars(arguments), "weights": None})
    return [model_of(without if source.own is not None else arguments, source.name) for source in sources]


def opened_model(arguments: argparse.Namespace, data: Data | None, name: str | None = None) -> OpenedModel:
    """The net of MODEL for the classes of `data`, as far as there are any; it is fed as it wants.

    What was found out on the way is printed. `InputError` when the data have other classes.
    """
    import dataclasses

    found = data.info().classes if data is not None else ()
    opened = source_of(arguments, name, len(found) or None).open()
    for note in opened.notes:
        print(note)
    if not found:
        return opened
    header = opened.header
    if not header.classes:
        return dataclasses.replace(opened, header=dataclasses.replace(header, classes=found))
    if header.classes != found:
        known, there = ", ".join(header.classes), ", ".join(found)
        raise InputError(f"the net knows the classes {known}; the data have {there}")
    return opened


def _feed(arguments: argparse.Namespace) -> dict[str, Any]:
    feed: dict[str, Any] = {
        name: _numbers(f"--{name}", value)
        for name in ("mean", "std")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.size is not None:
        feed["size"] = arguments.size
    if arguments.classes is not None:
        feed["classes"] = _names(arguments.classes)
    return feed | (_way(arguments.resize, arguments.size) if arguments.resize else {})


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise InputError(f"{flag} takes a number of each channel, such as 0.5,0.5,0.5, got {text!r}")
    return values


def _names(path: Path) -> tuple[str, ...]:
    from solution.runtime import check_readable

    check_readable(path, "file of class names")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} holds no names, one a line ({error})") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path} must hold the names of the outputs, one a line, each once")
    return names


def _way(text: str, size: int | None) -> dict[str, Any]:
    """Fields of `InputSpec` of --resize."""
    what, _, how = text.partition(" ")
    way = {"interpolation": how.strip()} if how.strip() else {}
    if what == "stretch":
        return {"crop": 0.0, **way}
    if size is None:
        raise InputError(f"--resize {text!r} needs --size: the side of the square that is cut out of it")
    if not what.isdigit() or int(what) < size:
        raise InputError(f'--resize takes "stretch" or a number of pixels from --size {size} on, got {text!r}')
    return {"crop": size / int(what), **way}


def words_for(path: Path, header: Header) -> str:
    """How a shell names a saved net: the file alone, or the code that builds it and the file as its weights."""
    file = shlex.quote(str(path))
    return file if header.spec is not None else f"{shlex.quote(header.code)} --weights {file}"


def quality_line(quality: dict[str, float], loaders: Loaders, what: str = "as it came") -> str:
    """What a net is worth on val; where it is no better than a guess, the likely reason."""
    from solution.tasks import CLASSIFICATION

    listed = ", ".join(f"{name} {value:.4f}" for name, value in quality.items())
    line = f"{what}, on {loaders.num_images('val')} pictures of val: {listed}"
    if CLASSIFICATION.at_chance(quality, loaders.info.counts.get("val", {})):
        line += "\nat chance: are mean and std right, and the order of the classes? See --mean --std --resize --classes"
    return line
