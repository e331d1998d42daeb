"""`python -m solution predict FILE IMAGES...`: classify photos with any file of ours, in any runtime."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from solution.commands.model import FORMS, RUNTIME_NAMES, add_model_flags, model_of
from solution.contracts import InputError
from solution.text import columns, printable

HELP = "classify photos with a checkpoint, a packed or an exported file: class names and probabilities"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, IMAGES and how to answer."""
    parser.add_argument("model", metavar="MODEL", help=f"an exported file, or {FORMS}")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="photos, folders of photos, or wildcards")
    parser.add_argument("--runtime", help=f"{RUNTIME_NAMES} (default: the file's own)")
    parser.add_argument("--format", choices=tuple(_FORMATS), default="table", help="default: table")
    parser.add_argument("--top", metavar="K", type=int, default=3, help="classes printed for each photo (default: 3)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the answers there instead of the screen")
    add_model_flags(parser)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for one photo: classes with their probabilities, the likeliest first."""

    image: str
    classes: tuple[tuple[str, float], ...]


def run(arguments: argparse.Namespace) -> None:
    """Classify, name what cannot be read, print or write the answers. `InputError` at the end if some are missing."""
    from solution.data.source import UnreadableImage
    from solution.runtime import check_writable

    if arguments.top < 1:
        raise InputError(f"--top must be at least 1, got {arguments.top}")
    if arguments.out is not None:
        check_writable(arguments.out)
    answers, unreadable = [], 0
    for path, ranked in _ranked_photos(arguments):
        if isinstance(ranked, UnreadableImage):
            unreadable += 1
            print(f"unreadable: {ranked}", file=sys.stderr)
        else:
            answers.append(Prediction(image=str(path), classes=ranked[: arguments.top]))
    if answers:
        _tell(answers, arguments)
    if unreadable:
        total = unreadable + len(answers)
        raise InputError(f"{unreadable} of {total} images cannot be read: mend or leave out those named above")


def _tell(answers: list[Prediction], arguments: argparse.Namespace) -> None:
    from solution.runtime import write_text

    text = _FORMATS[arguments.format](answers)
    if arguments.out is None:
        print(printable(text, lines=True))
        return
    write_text(arguments.out, f"{text}\n")
    print(f"{len(answers)} answers: {arguments.out}")


def _ranked_photos(arguments: argparse.Namespace) -> list[tuple]:
    """(photo, its classes with probabilities, or what is wrong with it) of all photos."""
    from solution.data.source import UnreadableImage
    from solution.evaluate.classify import find_photos, probabilities
    from solution.export.runtimes import form_for, open_in, own_runtime
    from solution.runtime import set_threads

    threads = set_threads()
    model = model_of(arguments, log=functools.partial(print, file=sys.stderr))
    runtime = arguments.runtime or own_runtime(model)
    with tempfile.TemporaryDirectory() as folder:
        exported = open_in(form_for(model, runtime, Path(folder)), runtime, threads)
        metadata = exported.metadata
        predicted = list(probabilities(exported, find_photos(arguments.images), metadata))
    return [
        (path, found if isinstance(found, UnreadableImage) else _ranked(metadata.labels, found.tolist()))
        for path, found in predicted
    ]


def _ranked(classes: tuple[str, ...], probabilities: list[float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(zip(classes, probabilities, strict=True), key=lambda pair: -pair[1]))


def _table(answers: list[Prediction]) -> str:
    rows = [(printable(answer.image), *(f"{name} {share:.1%}" for name, share in answer.classes)) for answer in answers]
    return "\n".join(columns(rows, left=range(len(rows[0]))))


def _csv(answers: list[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "probability"))
    for answer in answers:
        for rank, (name, share) in enumerate(answer.classes, start=1):
            writer.writerow((printable(answer.image), rank, printable(name), f"{share:.6f}"))
    return text.getvalue().rstrip("\n")


def _json(answers: list[Prediction]) -> str:
    lines = [
        {"image": answer.image, "classes": [{"class": name, "probability": share} for name, share in answer.classes]}
        for answer in answers
    ]
    return json.dumps(lines, indent=1)


_FORMATS = {"table": _table, "csv": _csv, "json": _json}
