"""`python -m solution validate MODEL --data PHOTOS`: what any net is worth on the val split, in any form."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.commands.model import FORMS, RUNTIME_NAMES, add_model_flags, check_classes, model_of, quality_line

if TYPE_CHECKING:
    from solution.data.loaders import Loaders
    from solution.evaluate.classify import Classified
    from solution.evaluate.segment import Segmented

HELP = "judge any net on the val split: macro F1 or mIoU, accuracy, each class, what is taken for what"
_CONFUSIONS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, the data and how to run it."""
    parser.add_argument("model", metavar="MODEL", help=f"an exported file, or {FORMS}")
    parser.add_argument(
        "--data", metavar="PATH", required=True, help="photos: folder, archive, .npz or torchvision name"
    )
    parser.add_argument("--runtime", help=f"{RUNTIME_NAMES} (default: the file's own)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Judge; print figures, classes and confusions."""
    from solution.contracts import SEGMENTATION
    from solution.data.loaders import Data
    from solution.evaluate.classify import classify
    from solution.evaluate.segment import segment
    from solution.export.runtimes import form_for, open_in, own_runtime
    from solution.runtime import check_writable, set_threads, write_text

    threads = set_threads()
    if arguments.json is not None:
        check_writable(arguments.json)
    model = model_of(arguments)
    runtime = arguments.runtime or own_runtime(model)
    with tempfile.TemporaryDirectory() as folder:
        exported = open_in(form_for(model, runtime, Path(folder)), runtime, threads, task=None)
        metadata, data = exported.metadata, Data(path=arguments.data)
        check_classes(metadata.classes, data.info().classes, metadata.outputs or len(metadata.classes))
        loaders = data.fed_as(metadata).open(splits=("val",))
        judge: Any = segment if metadata.task == SEGMENTATION else classify
        found = judge(exported, loaders.opened("val"))
    quality = found.quality()
    print(f"{arguments.model}, in {exported.runtime}, {loaders.info.title}")
    print(quality_line(quality, loaders, "quality"))
    print("\n" + _by_class(found, loaders))
    if arguments.json is not None:
        images = loaders.num_images("val")
        result = {"model": arguments.model, "runtime": exported.runtime, "images": images, **quality}
        write_text(arguments.json, json.dumps(result, indent=1) + "\n")


def _by_class(found: Classified | Segmented, loaders: Loaders) -> str:
    """Each class with its pictures and F1, or its pixels and IoU, then the commonest confusions."""
    import numpy as np

    from solution.text import columns

    names, confusion = loaders.info.classes, found.confusion
    of_pixels = not hasattr(found, "per_class_f1")
    scores = found.per_class if of_pixels else found.per_class_f1  # type: ignore[union-attr]
    rows: list[tuple[Any, ...]] = [("class", "pixels", "IoU") if of_pixels else ("class", "pictures", "F1")]
    rows += [(name, str(int(confusion[index].sum())), f"{scores[index]:.4f}") for index, name in enumerate(names)]
    off = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(off, axis=None)[::-1][:_CONFUSIONS]
    worst = [(index // len(off), index % len(off)) for index in order if off.flat[index]]
    lines = [
        f"{names[true]} is taken for {names[predicted]}: {off[true, predicted]} times" for true, predicted in worst
    ]
    return "\n".join([*columns(rows), "", *lines]).rstrip()
