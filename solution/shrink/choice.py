"""Which of the tried nets it is: exported, decided on dev by the exported file, and only then judged on val."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from solution.shrink.goal import ram_of
from solution.shrink.measured import WHOLE, Candidate
from solution.shrink.result import Line
from solution.shrink.search import Search
from solution.shrink.ship import Shipped, Verdict, precisions, verdict

_MOST_SHIPPED = 4
"""So many nets are exported at the end at most: each takes the reserve's share."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate as the file that ships."""

    candidate: Candidate
    file: Shipped

    @property
    def name(self) -> str:
        """As tables name it."""
        return f"{self.candidate.name}, {self.file.precision}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and beside what: the net as it came first, then the chosen one.

    kept  whether the chosen one keeps its quality on dev and all limits, as far as that can be known
    """

    entries: tuple[Entry, ...]
    ms: Mapping[str, float]
    kept: bool

    @property
    def chosen(self) -> Entry:
        """The chosen one."""
        return self.entries[1]


def choose(search: Search) -> Choice:
    """Export the best candidates, smallest first, until one keeps its quality as a file; time all in turns."""
    found = _exported(search)
    whole = [Entry(candidate=search.whole, file=file) for file in search.baseline.values()]
    ms = search.times({one.name: (one.file.path, one.candidate.size) for one in [*whole, *found]})
    limits = search.goal.limits(search.before())

    def over(entry: Entry) -> float:
        costs = costs_as_file(entry, ms)
        return max((costs[name] / limit for name, limit in limits.items()), default=0.0)

    def cost(entry: Entry) -> float:
        return ms[entry.name] * entry.file.bytes

    everything = [*found, *whole[1:]]
    fits = [one for one in everything if over(one) <= 1]
    keeps = [one for one in fits if not search.drop(one.file.dev) > search.goal.max_drop]
    if keeps:
        best = max(keeps, key=lambda one: (one.file.dev, -cost(one))) if limits else min(keeps, key=cost)
    elif fits and limits:
        best = max(fits, key=lambda one: _sortable(one.file.dev))
    else:
        best = min(found or everything or whole, key=lambda one: (over(one), -_sortable(one.file.dev)))
    others = [one for one in [*whole[1:], *found] if one is not best]
    return Choice(entries=(whole[0], best, *others), ms=ms, kept=bool(keeps))


def _exported(search: Search) -> list[Entry]:
    """Files of the candidates that are worth one."""
    ways = [one for one in precisions(search.runtime) if one in search.baseline]
    entries: list[Entry] = []
    for candidate in _worth_a_file(search):
        for precision in ways:
            file = search.ship(candidate, precision)
            if file is None:
                continue
            entries.append(Entry(candidate=candidate, file=file))
            if not search.drop(file.dev) > search.goal.max_drop:
                break
        late = _fine(search, entries) and not search.effort.has(2 * search.for_one_more())
        if len(entries) >= _MOST_SHIPPED or late:
            break
    return entries


def _fine(search: Search, entries: list[Entry]) -> bool:
    return any(search.drop(one.file.dev) <= search.goal.max_drop for one in entries)


def _worth_a_file(search: Search) -> Iterator[Candidate]:
    """The best of each level: those that keep quality, smallest first; then the one that is nearest to it."""
    levels: dict[int, Candidate] = {}
    for one in search.tried:
        key = round(100 * one.level)
        if key not in levels or _sortable(one.dev) >= _sortable(levels[key].dev):
            levels[key] = one
    by_level = [levels[key] for key in sorted(levels)]
    keeps = [one for one in by_level if not search.drop(one.dev) > search.goal.max_drop]
    rest = sorted((one for one in by_level if one not in keeps), key=lambda one: -_sortable(one.dev))
    yield from keeps[:2]
    yield from rest[:1] if keeps else rest[:2]
    yield from keeps[2:]


def costs_as_file(entry: Entry, ms: Mapping[str, float]) -> dict[str, float]:
    """What limits count."""
    costs = entry.candidate.costs
    return {"macs": costs["macs"], "latency": ms[entry.name], "size": entry.file.bytes,
            "ram": ram_of(costs, entry.file.precision)}  # fmt: skip


def lines_of(search: Search, choice: Choice) -> list[Line]:
    """All of it judged on val: the verdict, which no decision has seen."""
    subject, found = search.subject, []
    before: Verdict | None = None
    for place, entry in enumerate(choice.entries):
        judged = verdict(entry.file.path, entry.candidate.size, subject)
        before = before or judged
        figure = judged.quality.get(subject.task.figure)
        whole = before.quality.get(subject.task.figure)
        costs = costs_as_file(entry, choice.ms)
        found.append(
            Line(
                name=WHOLE if place == 0 else entry.name,
                role=("before", "chosen")[place] if place < 2 else "runner-up",
                precision=entry.file.precision,
                size=entry.candidate.size,
                macs=int(costs["macs"]),
                params=int(entry.candidate.costs["params"]),
                bytes=entry.file.bytes,
                ms=choice.ms[entry.name],
                ram=int(costs["ram"]),
                quality=judged.quality,
                figure=figure,
                interval=judged.interval(),
                drop=None if figure is None or whole is None else 100 * (whole - figure),
                drop_interval=judged.drop_interval(before) if place else None,
            )
        )
    return found


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
