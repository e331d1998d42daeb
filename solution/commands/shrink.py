"""`python -m solution shrink MODEL --data PHOTOS`: the smallest net that keeps its quality, exported and measured."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from solution.commands.model import FORMS, add_model_flags, opened_model, words_for
from solution.contracts import InputError

if TYPE_CHECKING:
    from solution.data.loaders import Data
    from solution.shrink.subject import Subject

HELP = "from a trained net to the smallest that keeps its quality, exported, measured and judged"
GO_ON = "what was finished is kept; run the same command with --resume to go on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, what it may lose and cost, and where it goes."""
    parser.add_argument("model", metavar="MODEL", help=FORMS)
    parser.add_argument("--data", metavar="PATH",
                        help="photos in a folder for each class, an archive, .npz or a name of torchvision's; or a "
                        "folder of photos without classes; without, layers are cut by their weights alone")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--max-drop", metavar="POINTS", type=float, default=1.0,
                        help="most that quality may fall, in points of 100 (default: 1.0)")  # fmt: skip
    parser.add_argument("--macs", metavar="LIMIT", help='"30%%" of what the net has, or "12M"')
    parser.add_argument("--latency", metavar="LIMIT", help='of one image in the runtime: "2 ms" or "50%%"')
    parser.add_argument("--size", metavar="LIMIT", dest="bytes", help='of the exported file: "100 KB" or "25%%"')
    parser.add_argument("--ram", metavar="LIMIT", help='what activations of one image take at once: "128 KB" or "50%%"')
    parser.add_argument("--for", metavar="RUNTIME", default="onnxruntime", dest="runtime",
                        help="where the net will run: onnxruntime, openvino, ... (default: onnxruntime)")  # fmt: skip
    parser.add_argument("--hours", metavar="H", type=float, help="most time that all of it may take")
    parser.add_argument("--passes", metavar="N", type=float, default=20.0,
                        help="without --hours: training effort, in passes of the whole net over the photos; the same "
                        "command then gives the same net (default: 20)")  # fmt: skip
    parser.add_argument("--set", metavar="data.KEY=VALUE", action="append", default=[], dest="settings",
                        help="how photos are batched and varied, such as data.batch_size=32")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with what was stopped")
    parser.add_argument("--seed", type=int, default=0, help="of orders, views and draws (default: 0)")
    parser.add_argument("--device", default="auto", help="of trainings: auto, cpu or cuda (default: auto)")
    add_model_flags(parser, side="--pixels")


def run(arguments: argparse.Namespace) -> int:
    """Search, and print the table and where everything is. Returns 1 after a verdict of FAIL, else 0."""
    from solution.shrink import run as verb
    from solution.shrink.goal import Goal

    goal = Goal(
        max_drop=arguments.max_drop,
        macs=arguments.macs,
        latency=arguments.latency,
        size=arguments.bytes,
        ram=arguments.ram,
        runtime=arguments.runtime,
        hours=arguments.hours,
        passes=arguments.passes,
    )
    verb.check(goal, arguments.out, arguments.resume)
    command = shlex.join(["python", "-m", "solution", *sys.argv[1:]])
    about = {"command": command, **({"data.path": arguments.data} if arguments.data else {})}
    subject = _subject(arguments)
    result = verb.run(subject, goal, arguments.out, resume=arguments.resume, about=about)
    file = shlex.quote(str(result.file))
    print(f"written: {result.file}, {result.out}/smaller.safetensors, report.html, front.svg\n\nnext:")
    print(f"  python -m solution predict {file} PHOTO")
    print(f"  python -m solution inspect {words_for(result.out / 'smaller.safetensors', subject.header)}")
    return 0 if result.passed else 1


def _subject(arguments: argparse.Namespace) -> Subject:
    """The net and the photos that the flags name."""
    import dataclasses

    import torch

    from solution.data.loaders import Data
    from solution.runtime import pick_device, seed_everything
    from solution.shrink import subject

    device, seed = pick_device(arguments.device), arguments.seed
    seed_everything(seed)
    photos = [] if arguments.data is None else _unsorted(Path(arguments.data))
    data = None
    if arguments.data is not None and not photos:
        data = _with_settings(Data(path=arguments.data), arguments.settings)
    elif arguments.settings:
        raise InputError("--set data.KEY=VALUE is for photos with classes: name them with --data")
    opened = opened_model(arguments, data)
    net, header = opened.net, opened.header
    if photos:
        return subject.of_photos(net, header, photos, device=device, seed=seed)
    if data is None:
        example = torch.zeros(2, len(header.mean), header.size, header.size)
        bare = subject.of_batches(net, example, {}, device=device, seed=seed)
        return dataclasses.replace(bare, header=header)
    return subject.of_data(net, header, data.fed_as(header), device=device, seed=seed)


def _unsorted(path: Path) -> list[Path]:
    """Photos of a folder that has no folders for classes; none when it has, or is no folder."""
    from solution.data.splits import is_picture

    return sorted(file for file in path.iterdir() if is_picture(file.name)) if path.is_dir() else []


def _with_settings(data: Data, settings: list[str]) -> Data:
    from solution.settings import changed

    changes = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.startswith("data."):
            raise InputError(f"--set takes data.KEY=VALUE, such as data.batch_size=32, got {setting!r}")
        changes[key] = value
    return changed(data, changes, "data")
