"""What the competition's teams published, and where their figures contradict the formula.

Task: photos of waste in 9 classes, as few multiply-accumulates and as high a macro F1 as possible. The photos are
private, so F1 and score of other photos are no repetition of these; MACs are the same count of the same nets.

Sources: the first seventeen results of the winning team's README (ShuffleNet v1, groups 3, width 1/4, 80 x 80; its
last row is After) and the public and private leaderboard rows of a second team.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

TOLERANCE = 1e-4
"""Published scores are cut or rounded to four digits: compare with this, not by rounding."""


@dataclass(frozen=True, kw_only=True)
class PublishedScore:
    """One published result."""

    f1: float
    macs: int
    score: float
    name: str = ""


UNITS: Mapping[int, str] = MappingProxyType(
    {1_688_940: "4,8,4", 1_439_700: "4,6,3", 1_272_450: "3,5,3", 1_083_210: "2,5,2", 1_007_460: "2,4,2"}
)
"""{MACs: units per stage} of the ShuffleNets that the winning team tried."""

BEFORE = PublishedScore(name="Before", f1=0.6206, macs=1_688_940, score=0.4005)
"""The published score contradicts the formula, which gives 0.3799; so it is kept out of `RESULTS`."""

AFTER = PublishedScore(name="After", f1=0.6149, macs=1_083_210, score=0.3431)

RESULTS: tuple[PublishedScore, ...] = (
    PublishedScore(f1=0.5320, macs=1_688_940, score=0.4858),
    PublishedScore(f1=0.5619, macs=1_688_940, score=0.4501),
    PublishedScore(f1=0.5877, macs=1_688_940, score=0.4192),
    PublishedScore(f1=0.6001, macs=1_688_940, score=0.4044),
    PublishedScore(f1=0.6220, macs=1_688_940, score=0.3782),
    PublishedScore(f1=0.6318, macs=1_688_940, score=0.3665),
    PublishedScore(f1=0.6386, macs=1_688_940, score=0.3584),
    PublishedScore(f1=0.6211, macs=1_299_789, score=0.3513),
    PublishedScore(f1=0.6358, macs=1_515_459, score=0.3493),
    PublishedScore(f1=0.6318, macs=1_439_700, score=0.3486),
    PublishedScore(f1=0.6225, macs=1_272_450, score=0.3476),
    PublishedScore(f1=0.6207, macs=1_083_210, score=0.3362),
    PublishedScore(f1=0.6158, macs=1_007_460, score=0.3366),
    AFTER,
    PublishedScore(name="second team, public", f1=0.5176, macs=1_862_490, score=0.5156),
    PublishedScore(name="second team, private", f1=0.4892, macs=1_862_490, score=1.1343),
)
"""Every published result that follows the formula."""
