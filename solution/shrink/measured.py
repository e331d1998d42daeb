"""What the net costs and is worth as it came, in its runtime too; what others will cost; files made and timed once."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from solution.contracts import InputError
from solution.evaluate.classify import Predict
from solution.export.runtimes import EAGER
from solution.shrink.effort import Effort, Journal
from solution.shrink.goal import Goal, costs_of, ram_of
from solution.shrink.judging import Judged, judged
from solution.shrink.rounds import Cut, kept
from solution.shrink.ship import OF_PYTORCH, Shipped, answering, precisions, shipped, times_ms
from solution.shrink.subject import Subject

WHOLE = "as it came"
_EXPORTS, _MEASURING = 2.2, 15.0
"""Reserve for the end: exports of the whole net, and seconds."""
_SHOWN = 10
"""Names of classes in a message."""
RATE = 1e-3
"""Peak learning rate of a candidate's rounds, unless the race tells otherwise."""
_SURE, _SURE_ENOUGH = 0.7, 0.5
"""Part of `max_drop` that decisions use at most, and the standard errors of a drop on dev that are added to it: dev is
small, and many nets are held against it."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A net that was tried.

    level    its share of the MACs of the net as it came
    dev      its figure on dev, in PyTorch
    error    standard error of its drop there, in points; NaN where it is not known
    steps    training steps so far
    lr       peak learning rate of its rounds
    folder   where it is kept, below the work folder; "" is the net as it came
    """

    name: str
    way: str
    level: float
    size: int
    dev: float
    steps: int
    folder: str
    costs: dict[str, float]
    lr: float = RATE
    error: float = math.nan


class Measured:
    """The net as it came, with a journal of all that was found of it."""

    def __init__(self, subject: Subject, goal: Goal, work: Path, log: Callable[[str], None]) -> None:
        self.subject, self.goal, self.work, self.log = subject, goal, work, log
        self.journal = Journal(work / "journal.json")
        batches = subject.given.train
        steps = 0.0 if batches is None else goal.passes * len(batches)
        self.effort = Effort(self.journal, goal.hours, steps)
        self.runtime = goal.runtime
        self.whole = self._judged()
        self.off = {"latency": 1.0, "size": 1.0}

    def _judged(self) -> Candidate:
        subject = self.subject

        def judged() -> dict[str, Any]:
            start = time.perf_counter()
            quality = subject.quality(subject.predict(subject.net), subject.header.size, "dev")
            seconds = time.perf_counter() - start
            if quality and subject.task.at_chance(quality, subject.given.info.counts.get("dev", {})):
                figure = f"{subject.task.title} {quality[subject.task.figure]:.3f}"
                known = subject.header.classes
                names = f" ({', '.join(known[:_SHOWN])}{', ...' if len(known) > _SHOWN else ''})" if known else ""
                raise InputError(
                    f"the net is at chance on these pictures ({figure}): are its weights, --mean and --std right, and "
                    f"are these the classes that it was trained on{names}, in this order?"
                )
            return {"quality": quality, "seconds": seconds, "costs": costs_of(subject.net, subject.example)}

        found = self.journal.once(WHOLE, judged)
        figure = found["quality"].get(subject.task.figure, math.nan)
        return Candidate(name=WHOLE, way="whole", level=1.0, size=subject.header.size, dev=figure, steps=0, folder="",
                         costs=found["costs"])  # fmt: skip

    def cut_of(self, candidate: Candidate) -> Cut:
        """Its net."""
        if not candidate.folder:
            return Cut(net=self.subject.net, size=self.subject.header.size)
        found = kept(self.work / candidate.folder, self.subject)
        if found is None:
            raise InputError(f"{self.work / candidate.folder} has lost its net: begin anew without --resume")
        return found

    def ship(self, candidate: Candidate, precision: str) -> Shipped | None:
        """Its file; made once."""
        folder, subject = self.work / (candidate.folder or "whole"), self.subject

        def made() -> dict[str, Any] | None:
            file = shipped(self.cut_of(candidate), subject, self.runtime, folder / precision, precision, self.log)
            if file is None:
                return None
            dev = self.on_dev(answering(file.path, subject), candidate.size)
            return {**dataclasses.asdict(file), **dev, "path": file.path.name}

        found = self.journal.once(f"{candidate.name} in {precision}, {self.runtime}", made)
        return None if found is None else Shipped(**{**found, "path": folder / found["path"]})

    def times(self, files: dict[str, tuple[Path, int]]) -> dict[str, float]:
        """Milliseconds of one image, once; of files and the sides of their pictures."""
        return self.journal.once("times of " + ", ".join(files), lambda: times_ms(files, self.runtime, self.subject))

    def drop(self, figure: float) -> float:
        """Points of 100 below the net as it came, on dev."""
        return 100 * (self.whole.dev - figure)

    @functools.cached_property
    def _as_it_came(self) -> Judged:
        subject = self.subject
        return judged(subject.predict(subject.net), subject, subject.header.size, "dev")

    def on_dev(self, predict: Predict, size: int) -> dict[str, float]:
        """{"dev": figure of `predict` there, "error": the standard error of its drop, in points}."""
        found = judged(predict, self.subject, size, "dev")
        return {"dev": found.figure, "error": found.drop_error(self._as_it_came)}

    def keeps(self, one: Candidate | Shipped) -> bool:
        """Whether quality is kept as far as dev can tell; without pictures nothing speaks against it.

        The net as it came in fewer bits is not one of many that were tried: it keeps it unless its drop is too large by
        more than a standard error. Val can still refuse it.
        """
        most, error = self.goal.max_drop, 0.0 if math.isnan(one.error) else one.error
        if isinstance(one, Shipped) and one in self.baseline.values():
            return not self.drop(one.dev) - error > most
        return not self.drop(one.dev) > min(_SURE * most, most - _SURE_ENOUGH * error)

    def measure(self) -> None:
        """Export the net as it came, in fewer bits too, and time all; what cannot be exported stays in PyTorch."""
        files: dict[str, Shipped] = {}
        for precision in reversed(precisions(self.runtime)):
            if precision != "fp32" and self.subject.given.calibration is None and self.runtime not in OF_PYTORCH:
                continue
            file = self.ship(self.whole, precision)
            if file is None and precision == "fp32":
                self.log(f"it cannot be exported for {self.runtime}, so its files are checkpoints, timed in PyTorch")
                self.runtime = EAGER
                self.measure()
                return
            if file is not None:
                files[precision] = file
        size = self.subject.header.size
        times = self.times({f"{WHOLE}, {precision}": (file.path, size) for precision, file in files.items()})
        for precision, file in files.items():
            ms = times[f"{WHOLE}, {precision}"]
            change = "" if math.isnan(file.dev) else f", quality {0 - self.drop(file.dev):+.1f} points on dev"
            self.log(f"as it came in {precision}: {file.bytes:,} bytes, {ms:.3g} ms{change}")
        self.baseline, self.ms = files, {precision: times[f"{WHOLE}, {precision}"] for precision in files}

    def _for_the_end(self) -> float:
        """Seconds that exports and the verdict need."""
        if not self.effort.timed:
            return 0.0
        return _EXPORTS * self.for_one_more() + _MEASURING

    def for_one_more(self) -> float:
        """Seconds that one more net takes at the end: its export and the verdict on it."""
        exporting = max(file.seconds for file in self.baseline.values())
        return exporting + 3 * self.journal.entries[WHOLE]["seconds"]

    def predicted(self, net: nn.Module, size: int) -> dict[str, float]:
        """What a net will cost as the file that ships, from its counts and from what the whole net's file costs."""
        costs, whole = costs_of(net, self.subject.example_at(size)), self.whole.costs
        precision = self._smallest()
        return {
            "macs": costs["macs"],
            "latency": self.off["latency"] * self.ms[precision] * costs["macs"] / whole["macs"],
            "size": self.off["size"] * self.baseline[precision].bytes * costs["params"] / whole["params"],
            "ram": ram_of(costs, precision),
        }

    def _smallest(self) -> str:
        """The precision of the smallest file."""
        return next(one for one in precisions(self.runtime) if one in self.baseline)

    def compare(self, net: nn.Module, size: int, level: float) -> None:
        """Export an untrained cut net and time it, so that what is predicted of nets near it is nearer to the truth."""
        precision = self._smallest()
        folder, said = self.work / "predicted", self.predicted(net, size)
        key = f"measured at {level:.3f}"

        def measured() -> dict[str, float]:
            file = shipped(Cut(net=net, size=size), self.subject, self.runtime, folder / f"{level:.3f}", precision,
                           self.log)  # fmt: skip
            if file is None:
                return dict(self.off)
            ms = times_ms({key: (file.path, size)}, self.runtime, self.subject)[key]
            return {"latency": self.off["latency"] * ms / said["latency"],
                    "size": self.off["size"] * file.bytes / said["size"]}  # fmt: skip

        self.off = self.journal.once(key, measured)

    def before(self) -> dict[str, float]:
        """What the net costs as it came, of which limits may be shares."""
        whole = self.whole.costs
        return {"macs": whole["macs"], "latency": self.ms["fp32"], "size": self.baseline["fp32"].bytes,
                "ram": whole["ram_float"]}  # fmt: skip
