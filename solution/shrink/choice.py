"""Which of the tried nets it is: exported, decided on dev by the exported file, and only then judged on val.

Val chooses nothing. It can only refuse: then the net as it came, in fewer bits, takes the place of the smaller one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from solution.shrink.goal import ram_of
from solution.shrink.judging import judged
from solution.shrink.measured import WHOLE, Candidate
from solution.shrink.result import Line
from solution.shrink.search import Search
from solution.shrink.ship import Shipped, answering, precisions

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

    kept     whether the chosen one keeps its quality on dev and all limits, as far as that can be known
    refused  what dev had chosen and val refused, with its change there; "" where they agree
    """

    entries: tuple[Entry, ...]
    ms: Mapping[str, float]
    kept: bool
    refused: str = ""

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
    everything = [*found, *whole[1:]]
    fits = [one for one in everything if _over(one, ms, limits) <= 1]
    keeps = [one for one in fits if search.keeps(one.file)]
    if keeps:
        cheapest = sorted(keeps, key=lambda one: _cost(one, ms))
        best = max(cheapest, key=lambda one: one.file.dev) if limits else cheapest[0]
    elif limits:
        best = min(fits or everything or whole, key=lambda one: (_over(one, ms, limits), -_sortable(one.file.dev)))
    else:  # nothing smaller is as good
        best = whole[0]
    others = [one for one in everything if one is not best]
    return Choice(entries=(whole[0], best, *others), ms=ms, kept=bool(keeps))


def _over(entry: Entry, ms: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """How many times the limit that it exceeds most; at most 1 where it keeps all."""
    costs = costs_as_file(entry, ms)
    return max((costs[name] / limit for name, limit in limits.items()), default=0.0)


def _cost(entry: Entry, ms: Mapping[str, float]) -> float:
    return ms[entry.name] * entry.file.bytes


def settled(search: Search, choice: Choice) -> tuple[Choice, list[Line]]:
    """The choice, all of it judged on val. Where val refuses the chosen one, the net as it came in the smallest form
    that val accepts takes its place, when there is one within all limits.
    """
    lines, most = _lines(search, choice), search.goal.max_drop
    if lines[1].drop is None or lines[1].drop <= most:
        return choice, lines
    limits = search.goal.limits(search.before())

    def safe(place: int) -> bool:
        entry, drop = choice.entries[place], lines[place].drop
        return entry.candidate is search.whole and _over(entry, choice.ms, limits) <= 1 and (drop or 0.0) <= most

    places = [place for place in range(len(lines)) if safe(place)]
    if not places:
        return choice, lines
    best = min(places, key=lambda place: _cost(choice.entries[place], choice.ms))
    order = [0, best, *(place for place in range(1, len(lines)) if place != best)]
    roles = ["before", "chosen", *["runner-up"] * (len(order) - 2)]
    swapped = dataclasses.replace(
        choice,
        entries=tuple(choice.entries[place] for place in order),
        refused=f"{choice.chosen.name} ({0 - lines[1].drop:+.2f} points on val)",
    )
    return swapped, [dataclasses.replace(lines[place], role=role) for place, role in zip(order, roles, strict=True)]


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
            if search.keeps(file):
                break
        late = any(search.keeps(one.file) for one in entries) and not search.effort.has(2 * search.for_one_more())
        if len(entries) >= _MOST_SHIPPED or late:
            break
    return entries


def _worth_a_file(search: Search) -> Iterator[Candidate]:
    """The best of each level: those that keep quality, smallest first; then the one that is nearest to it."""
    levels: dict[int, Candidate] = {}
    for one in search.tried:
        key = round(100 * one.level)
        if key not in levels or _sortable(one.dev) >= _sortable(levels[key].dev):
            levels[key] = one
    by_level = [levels[key] for key in sorted(levels)]
    keeps = [one for one in by_level if search.keeps(one)]
    rest = sorted((one for one in by_level if one not in keeps), key=lambda one: -_sortable(one.dev))
    yield from keeps[:2]
    yield from rest[:1] if keeps else rest[:2]
    yield from keeps[2:]


def costs_as_file(entry: Entry, ms: Mapping[str, float]) -> dict[str, float]:
    """What limits count."""
    costs = entry.candidate.costs
    return {"macs": costs["macs"], "latency": ms[entry.name], "size": entry.file.bytes,
            "ram": ram_of(costs, entry.file.precision)}  # fmt: skip


def _lines(search: Search, choice: Choice) -> list[Line]:
    """All of it judged on val, which no decision has seen."""
    subject = search.subject
    found = {
        one.file.path: judged(answering(one.file.path, subject), subject, one.candidate.size, "val")
        for one in choice.entries
    }
    before, lines = found[choice.entries[0].file.path], []
    for place, entry in enumerate(choice.entries):
        verdict, costs = found[entry.file.path], costs_as_file(entry, choice.ms)
        known = not math.isnan(verdict.figure)
        lines.append(
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
                quality=verdict.quality,
                figure=verdict.figure if known else None,
                interval=verdict.interval(),
                drop=100 * (before.figure - verdict.figure) if known else None,
                drop_interval=verdict.drop_interval(before) if place else None,
            )
        )
    return lines


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
