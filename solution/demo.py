"""What `test_demo.py` shows: committed checkpoints, judged now, on the data that their classes belong to."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from solution.contracts import InputError
from solution.run_folder import RunFolder
from solution.runtime import ROOT, check_writable, hardware, pick_device, set_threads, write_text

if TYPE_CHECKING:
    from solution.checkpoint import Header
    from solution.data.loaders import Data, Loaders

PRETRAINED = ROOT / "pretrained"
RUNS = Path("runs")
MAIN_SET = "recycle9"
"""The pair whose cost is shown when no data decide which one is meant."""
_ROUNDS, _SECONDS = 10, 0.05
"""How long each net is timed, in turns."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The flags of `test_demo.py`.

    both     After next to Before; else Before alone
    judge    quality on the val split too; else cost and speed alone
    data     a data set, or None for the demo's default
    weights  a folder with before and after as .safetensors or .packed, or None to find one by class names
    json_to  a file, "-" for standard output (and nothing else there), or None
    score    the competition's score too; nets of its recipes have it anyway
    """

    both: bool = True
    judge: bool = True
    data: str | None = None
    weights: Path | None = None
    json_to: str | None = None
    device: str = "auto"
    score: bool = False


def show(config: DemoConfig) -> None:
    """Print the table, and write the JSON when requested."""
    set_threads()
    if config.json_to not in (None, "-"):
        check_writable(Path(config.json_to))
    result = judged(config) if config.judge else costed(config)
    if config.json_to == "-":
        print(json.dumps(result, indent=1))
        return
    from solution.report.tables import side_by_side

    seen = f", {result['images']:,} images" if config.judge else " (not read: cost and speed alone)"
    print(f"data: {result['data']}{seen}\n{side_by_side(result['models'])}")
    print(f"packed file: the checkpoint as it is, packed; ms: quickest calls, in turns, on {result['timed_on']}")
    if config.json_to is not None:
        write_text(Path(config.json_to), json.dumps(result, indent=1) + "\n")
        print(f"figures written to {config.json_to}")


def costed(config: DemoConfig) -> dict[str, Any]:
    """{"data", "images", "timed_on", "models"} without quality: no data are touched."""
    from solution.export.files import read_header

    folder = config.weights or PRETRAINED / MAIN_SET
    paths = _roles(folder, config.both)
    return {"data": read_header(paths["before"]).data, "images": 0, **_measured(paths, {}, "cpu", config.score)}


def judged(config: DemoConfig) -> dict[str, Any]:
    """{"data", "images", "timed_on", "models"} with quality on the val split."""
    from solution.data.loaders import Data
    from solution.export.files import read_header

    settings = Data(path=config.data)
    classes = settings.info().classes
    paths = _roles(config.weights or matching(classes), config.both)
    _check_classes(paths, classes)
    device = pick_device(config.device)
    shown = {role: _val(settings, read_header(path)) for role, path in paths.items()}
    measured = _measured(paths, {role: loaders.val for role, loaders in shown.items()}, device, config.score)
    return {"data": shown["before"].info.title, "images": shown["before"].num_images("val"), **measured}


def _val(settings: Data, header: Header) -> Loaders:
    """The val split as the net of `header` wants its pictures."""
    return settings.fed_as(header).open(splits=("val",))


def _roles(folder: Path, both: bool) -> dict[str, Path]:
    return {role: _role(folder, role) for role in (("before", "after") if both else ("before",))}


def _role(folder: Path, role: str) -> Path:
    """The checkpoint, or where there is none the packed file."""
    path = RunFolder(path=folder).compared(role)
    if path.is_file():
        return path
    if path.with_suffix(".packed").is_file():
        return path.with_suffix(".packed")
    raise InputError(f"there is no {path}; --weights names a folder with before and after.safetensors, or .packed")


def matching(classes: tuple[str, ...]) -> Path:
    """The folder under `pretrained/` whose Before knows exactly these classes, else the newest run that does."""
    committed = sorted({path.parent for path in PRETRAINED.glob("*/before.*")})
    runs = sorted(
        RUNS.rglob(RunFolder(path=Path()).compared("before").name), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for folder in (*committed, *(path.parent for path in runs)):
        if _classes_known(folder) == classes:
            if folder not in committed:
                _to_stderr(f"no committed checkpoint knows these classes; judged is the newest run that does: {folder}")
            return folder
    raise InputError(
        f"no checkpoint knows the classes {', '.join(classes)}. Train one with\n"
        "  python -m solution run waste_shufflenet --data PATH --out runs/mine\n"
        "then judge it with --data PATH --weights runs/mine"
    )


def _classes_known(folder: Path) -> tuple[str, ...] | None:
    """Of the net that is Before in `folder`; None of one that cannot be read."""
    from solution.export.files import read_header

    with contextlib.suppress(InputError):
        return read_header(_role(folder, "before")).classes
    return None


def _check_classes(paths: Mapping[str, Path], classes: tuple[str, ...]) -> None:
    from solution.export.files import read_header

    for path in paths.values():
        known = read_header(path).classes
        if known != classes:
            raise InputError(f"{path} knows the classes {', '.join(known)}; the data have {', '.join(classes)}")


def _measured(paths: Mapping[str, Path], val: Mapping[str, Any], device: str, score: bool) -> dict[str, Any]:
    """{"timed_on", "models"}: every net itself, packed, and in the runtimes that are here. val: {role: batches}."""
    from solution.export import shipping
    from solution.export.runtimes import EAGER, EXPORTING

    models = {role: _figures(role, path, val.get(role), device, score) for role, path in paths.items()}
    missing = shipping.missing(EXPORTING)
    for form, reason in missing.items():
        _to_stderr(f"{form} is left out: {reason}")
    runtimes = [form for form in EXPORTING if form not in missing]
    _to_stderr(f"exporting and timing {' and '.join(paths)} in {', '.join((EAGER, *runtimes))}")
    with tempfile.TemporaryDirectory() as folder:
        forms = {role: dict(_forms(path, runtimes, Path(folder, role))) for role, path in paths.items()}
        times = _times_ms(paths, forms)
        for role, path in paths.items():
            shipped = {name: _shipped(file, val.get(role)) for name, file in (forms[role] | _beside(path)).items()}
            packed = _packed_bytes(path, Path(folder))
            models[role] |= {"packed_bytes": packed, "latency_ms": times[role], "exported": shipped}
    return {"timed_on": hardware(), "models": models}


def _figures(role: str, path: Path, batches: Any, device: str, score: bool) -> dict[str, Any]:
    import torch

    from solution.evaluate.cost import file_bytes
    from solution.export import files
    from solution.tasks import CLASSIFICATION, judge, score as score_of

    model, header = files.load(path)
    example = torch.zeros(1, 3, header.size, header.size)
    found = judge(model, example, {} if batches is None else {"": batches}, device=device)
    figures = {name: found[name] for name in ("macs", "macs_dispatched", "params")}
    figures |= {"bytes": file_bytes(path), **found["quality"]}
    if batches is not None and CLASSIFICATION.at_chance(found["quality"], _counts(batches, header)):
        _to_stderr(f"{role} is at chance level: a guess does as well")
    if batches is not None and (score or _is_scored(header)):
        figures["score"] = score_of(model, example, found, _to_stderr)
    return figures


def _is_scored(header: Header) -> bool:
    """Whether the net comes from a recipe of the competition."""
    from solution.recipes.catalogue import RECIPES

    name = header.recipe.get("name", "")
    return name in RECIPES and RECIPES[name]().score


def _counts(batches: Any, header: Header) -> dict[str, int]:
    """{class: pictures} of the val split."""
    labels = batches.dataset.labels.tolist()
    return {name: labels.count(label) for label, name in enumerate(header.classes)}


def _forms(path: Path, runtimes: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Each runtime with the file that it runs; why one has none is printed."""
    from solution.export.runtimes import form_for

    for runtime in runtimes:
        try:
            yield runtime, cast("Path", form_for(path, runtime, folder))
        except InputError as error:
            _to_stderr(f"{path.name} in {runtime} is left out: {error}")


def _beside(path: Path) -> dict[str, Path]:
    """{its name: the packed file next to a checkpoint}: it may hold the same net in fewer bits."""
    from solution.export.files import read_header

    packed = path.with_suffix(".packed")
    if packed == path or not packed.is_file():
        return {}
    sees, seen = ((own.classes, own.size, own.mean, own.std) for own in (read_header(packed), read_header(path)))
    return {packed.name: packed} if sees == seen else {}


def _shipped(file: Path, batches: Any) -> dict[str, float]:
    """{"bytes", and the quality of the file, run by its runtime}."""
    from solution.evaluate.classify import classify
    from solution.export.files import open_file

    exported = open_file(file, checked=True)
    return {"bytes": exported.num_bytes, **({} if batches is None else classify(exported, batches).quality())}


def _packed_bytes(path: Path, folder: Path) -> int:
    from solution.evaluate.cost import file_bytes
    from solution.export import files

    packed = folder / f"{path.stem}.packed"
    files.save(packed, *files.load(path))
    return file_bytes(packed)


def _times_ms(paths: Mapping[str, Path], forms: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, float]]:
    """{role: {runtime: milliseconds of one image}}, PyTorch eager first: of the quickest call, the least disturbed."""
    import torch

    from solution.evaluate.speed import Turns, measure
    from solution.export.runtimes import EAGER, case

    runs = [(role, {EAGER: path, **forms[role]}) for role, path in paths.items()]
    threads = torch.get_num_threads()
    cases = [case(file, runtime, threads, role) for role, own in runs for runtime, file in own.items()]
    times: dict[str, dict[str, float]] = {role: {} for role in paths}
    for speed in measure(cases, Turns(rounds=_ROUNDS, seconds=_SECONDS, batches=(1,)), log=lambda _: None):
        times[speed.model][speed.runtime] = round(speed.percentile_ms(0), 4)
    return times


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
