"""Runs nets of the suite and prints what became of each, and the sums over all.

PYTHONPATH=.:tests python -m nets.report                  every net, ratio 0.5
PYTHONPATH=.:tests python -m nets.report --ratio 0.3       every net, another ratio
PYTHONPATH=.:tests python -m nets.report splits gan --all  two groups, every ratio and importance
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping

from nets import NETS
from nets.checking import IMPORTANCES, ORDER, RATIOS, Outcome, Setting, Worker, worst
from nets.known import KNOWN

ALL: tuple[Setting, ...] = tuple((ratio, importance) for ratio in RATIOS for importance in IMPORTANCES)
Outcomes = Mapping[str, Mapping[Setting, Outcome]]


def expected(name: str, found: Mapping[Setting, Outcome]) -> bool:
    """Whether a net did as well as it is known to do, neither better nor worse; nobody minds what may stay whole."""
    kind = worst(list(found.values())).kind
    if name in KNOWN:
        return kind == KNOWN[name]
    return kind == "cut" or (kind == "refused" and not NETS[name].cuttable)


def macs_left(found: Mapping[Setting, Outcome]) -> float:
    """The largest share of its multiply-accumulates that a net keeps at ratio 0.5."""
    return max((outcome.macs for (ratio, _), outcome in found.items() if ratio == 0.5), default=1.0)


def small_share(found: Outcomes, limit: float = 0.4) -> float:
    """The share of the nets that can be cut that keep at most `limit` of their MACs at ratio 0.5."""
    left = [macs_left(of_net) for name, of_net in found.items() if NETS[name].cuttable]
    return sum(macs <= limit + 5e-3 for macs in left) / max(len(left), 1)


def line(name: str, found: Mapping[Setting, Outcome]) -> str:
    """One net in one line."""
    last = worst(list(found.values()))
    detail = last.detail.strip().splitlines()[-1][:150] if last.detail else ""
    return f"{name:36} {last.kind:8} {macs_left(found):.2f}  {'' if last.kind == 'cut' else detail}".rstrip()


def summary(found: Outcomes) -> str:
    """The sums over all nets."""
    kinds = Counter(worst(list(of_net.values())).kind for of_net in found.values())
    counts = ", ".join(f"{kind} {kinds[kind]}" for kind in ORDER)
    refused = sum(
        NETS[name].cuttable and worst(list(of_net.values())).kind == "refused" for name, of_net in found.items()
    )
    cuts = [outcome for of_net in found.values() for outcome in of_net.values() if outcome.kind == "cut"]
    return (
        f"{sum(cut.plain for cut in cuts)} of {len(cuts)} cuts are proven by zeros alone, too\n"
        f"{len(found)} nets: {counts}; {refused} of the refused should have been cut\n"
        f"{small_share(found):.0%} of the nets that can be cut keep at most 0.4 of their MACs at ratio 0.5"
    )


def main(arguments: list[str]) -> None:
    """Print a line for each net whose name contains one of the arguments, then the sums."""
    parser = argparse.ArgumentParser(description="Cuts the nets of the suite and proves each cut.")
    parser.add_argument("parts", nargs="*", help="parts of the names of nets")
    parser.add_argument("--ratio", type=float, choices=RATIOS, default=0.5)
    parser.add_argument("--all", action="store_true", help="every ratio")
    asked = parser.parse_args(arguments)
    settings = tuple(setting for setting in ALL if asked.all or setting[0] == asked.ratio)
    found: dict[str, dict[Setting, Outcome]] = {}
    with Worker() as worker:
        for name in (name for name in NETS if not asked.parts or any(part in name for part in asked.parts)):
            found[name] = worker.outcomes(NETS[name], settings)
            print(line(name, found[name]), flush=True)
    print(summary(found))


if __name__ == "__main__":
    main(sys.argv[1:])
