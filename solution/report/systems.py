"""What a run says when its recipe repeats a published system: tables, findings and drawings of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solution.report import detector, googlenet
from solution.report.spread import shipped
from solution.report.style import Drawing
from solution.run_folder import Run


@dataclass(frozen=True, kw_only=True)
class Told:
    """Texts in markdown, and drawings by the names of their files."""

    texts: tuple[str, ...]
    drawings: Mapping[str, Drawing]


def told(runs: Sequence[Run], slug: str = "") -> Told | None:
    """What `runs`, seeds of one recipe, say, or None for a recipe without tables of its own.

    `slug` keeps the drawings of several systems on one page apart.
    """
    if not repeats(runs[0]):
        return None
    return _detector(runs[0], slug) if detector.is_detector(runs[0].rows) else _googlenet(runs, slug)


def repeats(run: Run) -> bool:
    """Whether `told` has something to say of `run`."""
    return detector.is_detector(run.rows) or {row.step for row in run.rows} >= googlenet.STEPS


def _detector(run: Run, slug: str) -> Told:
    """Of several seeds the first is told."""
    tables = [detector.detector_table(run)]
    if run.rows[0].step == detector.ORIGINAL:
        tables.insert(0, detector.published_table(run))
    drawings = {"pruning": detector.pruning_drawing, "costs": detector.cost_drawing}
    return Told(
        texts=(*(table.markdown() for table in tables), *detector.detector_findings(run)),
        drawings={f"{name}.svg": draw(run, name) for kind, draw in drawings.items() if (name := _named(kind, slug))},
    )


def _googlenet(runs: Sequence[Run], slug: str) -> Told:
    tables = (googlenet.published_table(runs), googlenet.googlenet_table(runs), shipped([run.rows for run in runs]))
    name = _named("errors", slug)
    return Told(
        texts=(*(table.markdown() for table in tables if table), " ".join(googlenet.googlenet_findings(runs))),
        drawings={f"{name}.svg": googlenet.error_drawing(runs[0], name)},
    )


def _named(kind: str, slug: str) -> str:
    return f"{kind}-{slug}" if slug else kind
