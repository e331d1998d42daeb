"""What `test_demo.py` shows: committed checkpoints, judged now, on the data that their classes belong to."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.contracts import InputError
from solution.runtime import ROOT, pick_device, set_threads, write_text

if TYPE_CHECKING:
    from solution.checkpoint import Header
    from solution.dataloader import Data, Loaders

PRETRAINED = ROOT / "pretrained"
MAIN_SET = "recycle9"
"""The pair whose cost is shown when no data say which one is meant."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The flags of `test_demo.py`.

    both     After with Before beside it; else Before alone
    judge    quality on the val split too; else cost alone
    data     a data set, or None for the demo's default
    weights  a folder with before and after as .safetensors or .packed, or None to find one by class names
    json_to  a file, "-" for standard output (and nothing else there), or None
    """

    both: bool = True
    judge: bool = True
    data: str | None = None
    weights: Path | None = None
    json_to: str | None = None
    device: str = "auto"


def show(wish: Wish) -> None:
    """Print the table, and write the JSON when asked to."""
    set_threads()
    said = judged(wish) if wish.judge else costed(wish)
    if wish.json_to == "-":
        print(json.dumps(said, indent=1))
        return
    from solution.report.tables import side_by_side

    print(f"data: {said['data']}" + (f", {said['images']:,} images" if wish.judge else " (not read; cost alone)"))
    print(side_by_side(said["models"]))
    if wish.json_to is not None:
        write_text(Path(wish.json_to), json.dumps(said, indent=1) + "\n")
        print(f"figures written to {wish.json_to}")


def costed(wish: Wish) -> dict[str, Any]:
    """{"data", "images", "models"} without quality: no data are touched."""
    from solution.export.files import read_header

    folder = wish.weights or PRETRAINED / MAIN_SET
    paths = _roles(folder, wish.both)
    models = {role: _figures(path, None, "cpu") for role, path in paths.items()}
    return {"data": read_header(paths["before"]).data, "images": 0, "models": models}


def judged(wish: Wish) -> dict[str, Any]:
    """{"data", "images", "models"} with quality on the val split."""
    from solution.dataloader import Data
    from solution.export.files import read_header

    settings = Data(path=wish.data)
    classes = settings.card().classes
    paths = _roles(wish.weights or matching(classes), wish.both)
    _check_classes(paths, classes)
    device = pick_device(wish.device)
    shown = {role: _val(settings, read_header(path)) for role, path in paths.items()}
    models = {role: _figures(path, shown[role].val, device) for role, path in paths.items()}
    return {"data": shown["before"].card.title, "images": shown["before"].num_images("val"), "models": models}


def _val(settings: Data, header: Header) -> Loaders:
    """The val split as the net of `header` wants its pictures."""
    settings = dataclasses.replace(settings, size=header.size)
    return settings.open(splits=("val",), normalisation=(header.mean, header.std))


def _roles(folder: Path, both: bool) -> dict[str, Path]:
    return {role: _role(folder, role) for role in (("before", "after") if both else ("before",))}


def _role(folder: Path, role: str) -> Path:
    """The checkpoint, or where there is none the packed file."""
    path = folder / f"{role}.safetensors"
    if path.is_file():
        return path
    if path.with_suffix(".packed").is_file():
        return path.with_suffix(".packed")
    raise InputError(f"there is no {path}; --weights names a folder with before and after.safetensors, or .packed")


def matching(classes: tuple[str, ...]) -> Path:
    """The folder under `pretrained/` whose Before knows exactly these classes."""
    from solution.export.files import read_header

    for folder in sorted({path.parent for path in PRETRAINED.glob("*/before.*")}):
        if read_header(_role(folder, "before")).classes == classes:
            return folder
    raise InputError(
        f"no checkpoint knows the classes {', '.join(classes)}. Train one with\n"
        "  python -m solution run waste_shufflenet --data PATH --out runs/mine\n"
        "then judge it with --data PATH --weights runs/mine"
    )


def _check_classes(paths: Mapping[str, Path], classes: tuple[str, ...]) -> None:
    from solution.export.files import read_header

    for path in paths.values():
        known = read_header(path).classes
        if known != classes:
            raise InputError(f"{path} knows the classes {', '.join(known)}; the data have {', '.join(classes)}")


def _figures(path: Path, batches: Any, device: str) -> dict[str, Any]:
    import torch

    from solution.evaluate.classify import classify, predictor
    from solution.evaluate.cost import file_bytes, params
    from solution.export import files
    from solution.pipeline import scored

    model, header = files.load(path)
    example = torch.zeros(1, 3, header.size, header.size)
    quality = {} if batches is None else classify(predictor(model, device), batches).quality()
    cost = scored(model, example, quality.get("f1"), say=_to_stderr)
    score = cost.pop("score")
    figures = {**cost, "params": params(model), "bytes": file_bytes(path), **quality}
    return figures if batches is None else {**figures, "score": score}


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
