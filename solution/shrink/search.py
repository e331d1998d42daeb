"""From a net to the smallest that keeps its quality: race ways, go further while there is room, back off when not.

Every decision uses dev. Everything that was decided or measured is in the journal, so that a search that was stopped
goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from solution.contracts import InputError
from solution.shrink.effort import OutOfTimeError
from solution.shrink.goal import Goal, costs_of
from solution.shrink.measured import WHOLE, Candidate, Measured
from solution.shrink.proposals import Proposal, Proposer, bearable, measured_alone
from solution.shrink.rounds import Cut, Round, Teaching, keep, kept
from solution.shrink.subject import Subject

IN_TRAININGS = "seconds in trainings"
FIRST_LEVEL, LEAST_LEVEL = 0.9, 0.02
"""Share of MACs that is tried first, and the least one."""
FURTHER, FURTHER_AT_ONCE, CLOSE_LEVELS = 0.85, 0.65, 0.94
"""Factor to the next level after a net that keeps its quality, after one that did so at its first short round, and the
ratio of levels between which nothing is tried."""
_MOVED = 1.02
"""A way back that ends below so many times the level that failed ends the walk."""
_RACE, _SEMIFINAL, _ROUND, _LAST = 0.03, 0.06, 0.14, 0.25
"""Shares of the effort for a race's run, the best of it again, a round at one level, and the chosen net at the end."""
_RACED, _GENTLE_LEVEL = 3, 0.6
"""So many ways are trained in a race; all of them below this level, where a cut net before training tells nothing."""
_WALKING = 2
"""So many ways of a race are cut at each level of the walk; the better one is trained."""
_MOST_RACED = 0.3
"""Share of the time after which a race is over, whoever has not run: cutting takes time, too."""
_COMPARED = 2
"""So often at most the predictions of milliseconds and bytes are held against an untrained net's own file."""
_GENTLER = 4.0
"""By what the learning rate is divided for nets that bear less; the race tells."""
_HOPELESS = 3.0
"""A net that drops so many times as much as it may after its first round gets no other one."""
_FEWEST = 8
"""Training steps without which a candidate is none."""
_VIEWS, _FOR_LOGITS, _FOR_LAYERS = 4, 0.08, 0.06
"""Views with stored logits without a limit of time; shares of it that logits, and what layers bear, may take."""


class Search(Measured):
    """One search. `run` returns all candidates in the order in which they were tried."""

    def __init__(self, subject: Subject, goal: Goal, work: Path, log: Callable[[str], None]) -> None:
        super().__init__(subject, goal, work, log)
        self.tried: list[Candidate] = []
        self.rounds = 0
        self.teaching: Teaching | None = None
        self.ways: tuple[str, ...] = ()

    def run(self) -> list[Candidate]:
        """All candidates, in the order in which they were tried; the whole net is not among them."""
        self.measure()
        self.effort.reserve = self._for_the_end()
        if self.effort.timed and self.effort.left() <= 0:
            raise InputError(self._no_time())
        proposer = Proposer(subject=self.subject, macs=int(self.whole.costs["macs"]), bears={})
        level = self._first_level(proposer)
        if self.subject.given.train is None:
            return self._by_weights(proposer.at("uniform", level))
        self.teaching = self._taught()
        proposer = dataclasses.replace(proposer, bears=self._bearable())
        try:
            best = self._raced(proposer, level)
            if self.goal.limited:
                self._trained(self.cut_of(best), best, 1.0)
            else:
                self._walked(proposer, best)
        except OutOfTimeError:
            self.log("the time for trainings is over; what was finished is kept")
        if not self.tried:
            if not self.effort.timed or len(self.baseline) < 2:
                raise InputError(self._no_time())
            self.log("no time was left for a single candidate, so the net as it came in fewer bits is the answer")
        return self.tried

    def _by_weights(self, proposal: Proposal) -> list[Candidate]:
        """The one candidate that needs no training pictures."""
        if not self.goal.limited:
            raise InputError(
                "without training pictures nothing tells how far to go: name a limit such as --macs 50%, or photos "
                "with --data"
            )
        cut = Cut(net=proposal.made(self.subject.net, self.subject, _quiet), size=proposal.size)
        costs = costs_of(cut.net, self.subject.example)
        level = costs["macs"] / self.whole.costs["macs"]
        keep(self.work / "by_weights", cut, self.subject)
        dev = self.subject.figure(cut.net, cut.size)
        self.tried = [Candidate(name=f"by weights {level:.0%}", way="uniform", level=level, size=cut.size, dev=dev,
                                steps=0, folder="by_weights", costs=costs)]  # fmt: skip
        return self.tried

    def _no_time(self) -> str:
        if not self.effort.timed:
            return f"{self.goal.passes:g} passes leave no step for a candidate: give more with --passes"
        seconds, end = self.journal.seconds(), self.effort.reserve
        return (
            f"--hours {self.goal.hours:g} leaves no time for a single candidate: judging and exporting the net as it "
            f"came took {seconds:.0f} s, and the end takes {end:.0f} s; give at least --hours "
            f"{math.ceil(2 * (seconds + end) / 36) / 100:g}"
        )

    def _taught(self) -> Teaching:
        subject, views = self.subject, _VIEWS
        if self.effort.timed and subject.views is not None:
            dev, train = subject.given.num_images("dev"), subject.given.num_images("train")
            each = self.journal.entries[WHOLE]["seconds"] / dev * train
            views = min(int(_FOR_LOGITS * self.effort.total / each), 2 * _VIEWS)
        return Teaching(subject, self.journal.once("views", lambda: views), self.log)

    def _bearable(self) -> dict[str, float]:
        """{layer: share of its channels that may go}; none when it cannot be measured in time."""
        if math.isnan(self.whole.dev):
            return {}
        begin = time.monotonic()

        def in_time(done: int, number: int) -> bool:
            if not self.effort.timed:
                return True
            seconds = time.monotonic() - begin
            return done < 2 or seconds / done * number < _FOR_LAYERS * self.effort.total

        def measured() -> dict[str, float]:
            losses, whole = measured_alone(self.subject, in_time, self.log)
            return bearable(losses, whole)

        return self.journal.once("what layers bear", measured)

    def _first_level(self, proposer: Proposer) -> float:
        """Where the search begins: the most MACs with which all limits are met. `InputError` when none is enough."""
        limits = self.goal.limits(self.before())
        if not limits:
            return FIRST_LEVEL
        size, level, costs = self.subject.header.size, 1.0, self.predicted(self.subject.net, self.subject.header.size)
        net, compared = self.subject.net, 0
        for _ in range(16):
            excess = max(costs[name] / limit for name, limit in limits.items())
            if excess <= 1 and compared < _COMPARED and level < 1 and {"latency", "size"} & limits.keys():
                self.compare(net, size, level)
                costs, compared = self.predicted(net, size), compared + 1
                continue
            if excess <= 1:
                return min(level, 0.98)
            if level == LEAST_LEVEL:
                break
            level = max(level * min(0.97 / excess, 0.95), LEAST_LEVEL)
            try:
                net = proposer.without_training(proposer.at("uniform", level))
                costs = self.predicted(net, size)
            except InputError:
                net, costs = self._least_from(proposer, level)
                break
        least = ", ".join(f"{name} {costs[name]:,.4g} (limit {limit:,.4g})" for name, limit in limits.items())
        lost = self.drop(self.subject.figure(net, size))
        cost = "" if math.isnan(lost) else f", which loses {lost:.1f} points before any training"
        raise InputError(f"these limits cannot be reached by cutting channels: the least is {least}{cost}; allow more")

    def _least_from(self, proposer: Proposer, level: float) -> tuple[nn.Module, dict[str, float]]:
        """The net that channels can be cut to, and its costs, when `level` is below what they allow."""
        while (level := 1.2 * level) < 1:
            with contextlib.suppress(InputError):
                net = proposer.without_training(proposer.at("uniform", level))
                return net, self.predicted(net, self.subject.header.size)
        return self.subject.net, self.predicted(self.subject.net, self.subject.header.size)

    def _raced(self, proposer: Proposer, level: float) -> Candidate:
        """The best way at `level`: all are cut, the best of them trained a little, the best of these once more."""
        begin, most = time.monotonic(), _MOST_RACED * max(self.effort.left(), 0.0)
        cut: list[tuple[Candidate, Cut]] = []
        for proposal in proposer.ways(level):
            made = self._only_cut(proposal, self.whole, level)
            cut += [made] if made else []
            late = self.effort.timed and time.monotonic() - begin > most
            if cut and self.journal.once(f"race over at {proposal.way}", functools.partial(bool, late)):
                break
        cut.sort(key=lambda one: -_sortable(one[0].dev))
        self.ways = tuple(one.way for one, _ in cut[:_WALKING])
        if cut and level >= _GENTLE_LEVEL and self.keeps(cut[0][0]):
            return self._kept_untrained(*cut[0])
        number = _RACED if level >= _GENTLE_LEVEL else len(cut)
        runs = [self._trained(net, one, _RACE) for one, net in cut[:number]]
        ran = sorted(filter(None, runs), key=lambda one: -_sortable(one.dev))
        if not ran:
            raise OutOfTimeError
        if level >= _GENTLE_LEVEL and self.keeps(ran[0]):
            return ran[0]
        gentle = dataclasses.replace(ran[0], lr=ran[0].lr / _GENTLER)
        again = [self._trained(self.cut_of(one), one, _SEMIFINAL) for one in [gentle, *ran[:2]]]
        return max([*filter(None, again), ran[0]], key=lambda one: _sortable(one.dev))

    def _walked(self, proposer: Proposer, best: Candidate) -> None:
        """From level to level: further while quality is kept, half the way back when it is not; then the last round."""
        total = self.journal.once("left to walk", lambda: max(self.effort.left(), 1e-9))
        fine: Candidate | None = None
        failed, now = 0.0, best
        while self.journal.once(f"on after {self.rounds}", lambda: self.effort.left() > (_LAST + _ROUND / 2) * total):
            done, further = self._enough(now), FURTHER_AT_ONCE if self.keeps(now) else FURTHER
            if self.keeps(done):
                fine = done
            else:
                failed = done.level
            upper = fine.level if fine else 1.0
            level = math.sqrt(upper * failed) if failed else upper * further
            if level < LEAST_LEVEL or (failed and failed / upper > CLOSE_LEVELS):
                break
            next_one = self._next(proposer, level, fine)
            if next_one is None or next_one.level < _MOVED * failed:  # there may be no net between two levels
                break
            now = next_one
        self._polished()

    def _enough(self, candidate: Candidate) -> Candidate:
        """`candidate` after as many rounds as it takes to tell whether it keeps its quality: none, one or two."""
        for _ in range(2):
            drop = self.drop(candidate.dev)
            if self.keeps(candidate) or drop > max(_HOPELESS * self.goal.max_drop, 2.0):
                break
            candidate = self._trained(self.cut_of(candidate), candidate, _ROUND) or candidate
        return candidate

    def _next(self, proposer: Proposer, level: float, fine: Candidate | None) -> Candidate | None:
        """The best of the race's ways at `level`, cut from `fine` where its way goes on; after a short round, where it
        does not keep its quality without.
        """
        cut = []
        for way in dict.fromkeys([*([fine.way] if fine else []), *self.ways]):
            source = fine if fine and "low_rank" not in (way, fine.way) else None
            proposal = proposer.further(way, level, source.size) if source else proposer.at(way, level)
            made = self._only_cut(proposal, source or self.whole, level)
            cut += [made] if made else []
        if not cut:
            return None
        best, net = max(cut, key=lambda one: _sortable(one[0].dev))
        return self._kept_untrained(best, net) if self.keeps(best) else self._trained(net, best, _RACE)

    def _only_cut(self, proposal: Proposal, source: Candidate, level: float) -> tuple[Candidate, Cut] | None:
        """What `proposal` makes of `source`, judged on dev before any training; None where it cannot be made."""
        way = proposal.way
        try:
            made = Cut(net=proposal.made(self.cut_of(source).net, self.subject, _quiet), size=proposal.size)
        except InputError as error:
            self.log(f"{way} at {level:.0%}: left out, {error}")
            return None
        key = f"{way} at {level:.3f} of {source.name}, only cut"
        figures = self.journal.once(key, lambda: self.on_dev(self.subject.predict(made.net), made.size))
        self.log(f"{way} at {level:.0%}, only cut: {0 - self.drop(figures['dev']):+.1f} points on dev")
        costs = costs_of(made.net, self.subject.example_at(made.size))
        share = costs["macs"] / self.whole.costs["macs"]
        fresh = Candidate(name="", way=way, level=share, size=made.size, steps=source.steps, folder="", costs=costs,
                          lr=source.lr, **figures)  # fmt: skip
        return fresh, made

    def _kept_untrained(self, candidate: Candidate, cut: Cut) -> Candidate:
        """`candidate`, which needs no training, among those that were tried."""
        self.rounds += 1
        name = f"{self.rounds:02d} {candidate.way} {candidate.level:.0%}"
        folder = self.work / name.replace(" ", "_").replace("%", "")
        if kept(folder, self.subject) is None:
            keep(folder, cut, self.subject)
        self.tried.append(dataclasses.replace(candidate, name=name, folder=folder.name))
        self.log(f"{name}: keeps its quality without training; {self.effort}")
        return self.tried[-1]

    def _polished(self) -> None:
        """The rest of the effort for the smallest net that keeps its quality or may come to."""
        near = [one for one in self.tried if self.keeps(one) or self.drop(one.dev) <= self.goal.max_drop + 0.5]
        if near:
            best = min(near, key=lambda one: (one.level, -_sortable(one.dev)))
        else:
            best = max(self.tried, key=lambda one: _sortable(one.dev))
        self._trained(self.cut_of(best), best, 1.0)

    def _trained(self, cut: Cut, candidate: Candidate, share: float) -> Candidate | None:
        """`candidate` after a round with this share of the effort, or of what is left; None when too little is."""
        assert self.teaching is not None
        self.rounds += 1
        name = f"{self.rounds:02d} {candidate.way} {candidate.level:.0%}"
        plan = Round(
            lr=candidate.lr, **self.journal.once(f"{name}: plan", lambda: self._planned(cut, candidate, share))
        )
        if plan.steps < _FEWEST:
            return None
        folder = self.work / name.replace(" ", "_").replace("%", "")
        done = kept(folder, self.subject)
        if done is None:
            begin = time.monotonic()
            done = self.teaching.run(cut, plan, folder, self.effort)
            keep(folder, done, self.subject)
            spent = float(self.journal.entries.get(IN_TRAININGS, 0.0))
            self.journal.note(IN_TRAININGS, round(spent + time.monotonic() - begin, 2))
        self.effort.charge(plan.steps, candidate.level)
        figures = self.journal.once(f"{name}: dev", lambda: self.on_dev(self.subject.predict(done.net), done.size))
        made = dataclasses.replace(
            candidate, name=name, steps=candidate.steps + plan.steps, folder=folder.name, **figures
        )
        self.tried.append(made)
        spread = "" if math.isnan(made.error) else f" ± {made.error:.1f}"
        so_far = f"{self.effort}; best so far: {self._best_so_far()}"
        self.log(f"{name}: {plan.steps} steps, {0 - self.drop(made.dev):+.1f}{spread} points on dev; {so_far}")
        return made

    def _planned(self, cut: Cut, candidate: Candidate, share: float) -> dict[str, Any]:
        """Steps, first epoch and rate of the next round, from what a step costs now and what is left."""
        assert self.teaching is not None
        each = self.teaching.seconds_per_step(cut, self.effort) if self.effort.timed else candidate.level
        units = min(max(share * self.effort.total, 1.01 * _FEWEST * each), 0.95 * self.effort.left())
        return {"steps": max(int(units / each), 0), "first": 1000 * self.rounds}

    def _best_so_far(self) -> str:
        fine = [one for one in self.tried if self.keeps(one)]
        if not fine:
            return "the net as it came in fewer bits"
        best = min(fine, key=lambda one: one.level)
        return f"{best.level:.0%} of the MACs, {0 - self.drop(best.dev):+.1f} points"


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _quiet(_line: str) -> None:
    """Takes a line, and does nothing with it."""
