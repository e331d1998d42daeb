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
RUNTIME_NAMES = "eager, compile, onnxruntime, openvino, litert, executorch or tflite-micro"
_SHOWN = 10
"""Names of classes in a message."""


def add_model_flags(parser: argparse.ArgumentParser, *, weights: bool = True, side: str = "--size") -> None:
    """--weights, --mean, --std, --size (or `side`), --resize, --classes, --channels, --new-head, --pretrained."""
    parser.set_defaults(side_flag=side)
    group = parser.add_argument_group("a net of elsewhere")
    if weights:
        group.add_argument("--weights", metavar="FILE", type=Path,
                           help=".pt, .pth, .bin, .ckpt or .safetensors for a net that MODEL names")  # fmt: skip
    group.add_argument("--pretrained", action="store_true", help="the library's published weights, downloaded")
    group.add_argument("--new-head", action="store_true", help="a fresh classifier, for photos of other classes")
    group.add_argument("--classes", metavar="FILE", type=Path, help="names of the outputs, one a line, in their order")
    group.add_argument(
        "--mean", metavar="R,G,B",
        help="of pictures scaled to 0..1: three numbers, or one for gray (default: the net's own, or ImageNet's)"
    )  # fmt: skip
    group.add_argument("--std", metavar="R,G,B", help="standard deviation of the same, as many numbers")
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
        side_flag=arguments.side_flag,
    )


def model_of(arguments: argparse.Namespace, name: str | None = None, log: Callable[[str], None] = print) -> Model:
    """MODEL for whatever changes no layer: the path of a file of ours or an exported one, or what names another net.

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

    from solution.data.loaders import in_order_of

    found = data.info().classes if data is not None else ()
    opened = source_of(arguments, name, len(found) or None).open()
    for note in opened.notes:
        print(note)
    if not found:
        return opened
    header = opened.header
    if header.classes:
        check_classes(header.classes, found, 0)
        found = in_order_of(header.classes, found)
    else:
        print(f"classes: the net names none; they are taken to be, in this order, {_some(found)}")
    return dataclasses.replace(opened, header=dataclasses.replace(header, classes=found))


def check_classes(known: tuple[str, ...], found: tuple[str, ...], outputs: int) -> None:
    """`InputError` unless a net of these classes, or of so many outputs without names, can be judged on the data."""
    fresh = ", or fit a fresh classifier: compress MODEL --new-head --step train --data PHOTOS"
    fresh = "" if len(known or range(outputs)) == len(found) else fresh
    if not known and outputs and outputs != len(found):
        raise InputError(
            f"the net has {outputs} outputs, and the data have {len(found)} classes ({_some(found)}): name photos of "
            f"its own classes{fresh}"
        )
    names = [name.casefold() for name in known]
    if not known or sorted(names) == sorted(name.casefold() for name in found):
        return
    both = f"the net knows the classes {_some(known)}; the data have {_some(found)}"
    others = [name for name in found if name.casefold() not in names]
    which = f", of which it knows {'none' if len(others) == len(found) else 'no ' + _some(others)}" if others else ""
    raise InputError(
        f"{both}{which}: name photos of its own classes{fresh}; where the names alone differ, give --classes FILE"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _feed(arguments: argparse.Namespace) -> dict[str, Any]:
    feed: dict[str, Any] = {
        name: _numbers(f"--{name}", value)
        for name in ("mean", "std")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.size is not None:
        if arguments.size < 1:
            raise InputError(
                f"{arguments.side_flag} is the side of the input in pixels, 1 or more, got {arguments.size}: leave it "
                "out for the net's own"
            )
        feed["size"] = arguments.size
    if arguments.classes is not None:
        feed["classes"] = _names(arguments.classes)
    return feed | (_way(arguments.resize, arguments.size, arguments.side_flag) if arguments.resize else {})


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise InputError(
            f"{flag} takes a number of each channel, three for color, such as 0.5,0.5,0.5, and one for gray pictures, "
            f"got {text!r}"
        )
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


def _way(text: str, size: int | None, flag: str) -> dict[str, Any]:
    """Fields of `InputSpec` of --resize."""
    what, _, how = text.partition(" ")
    way = {"interpolation": how.strip()} if how.strip() else {}
    if what == "stretch":
        return {"crop": 0.0, **way}
    if size is None:
        raise InputError(f"--resize {text!r} needs {flag}: the side of the square that is cut out of it")
    if not what.isdigit() or int(what) < size:
        raise InputError(f'--resize takes "stretch" or a number of pixels from {flag} {size} on, got {text!r}')
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
        line += (
            f"\nat chance: are mean and std right, and was it trained on {_some(loaders.info.classes)}, in this order? "
            "See --mean --std --resize --classes"
        )
    return line
