"""What the competition's teams published, and where their figures contradict the formula.

Task: photos of waste in 9 classes, as few multiply-accumulates and as high a macro F1 as possible. The photos are
private, so F1 and score of other photos do not repeat these; MACs are the same count of the same nets.

Sources: the first seventeen results of the winning team's README (ShuffleNet v1, groups 3, width 1/4, 80 x 80; its
last row is After) and the public and private leaderboard rows of a second team.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from solution.report.front import Point, Series

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

_NAMES = {"After": "published After", "second team, public": "second team"}

PUBLISHED = Series(
    name="published (private photos)",
    points=tuple(Point(macs=one.macs, quality=one.f1, name=_NAMES.get(one.name, "")) for one in RESULTS),
    look="published",
    joined=True,
)
"""The same as points of a plot."""

PEERS = Series(
    name="60 plain epochs (recycle9 val)",
    points=(
        Point(name="lcnet_035", macs=1_530_000, quality=0.727),
        Point(name="mobilenetv3_small_050", macs=1_650_000, quality=0.736),
        Point(name="lcnet_050", macs=2_540_000, quality=0.721),
        Point(name="shufflenet_v2_x0_5", macs=880_000, quality=0.673),
        Point(name="4,8,4", macs=1_688_940, quality=0.734),
        Point(name="2,5,2", macs=1_083_210, quality=0.731),
    ),
)
"""Nets that one would pick instead: timm's at 48 px, torchvision's at 32, our ShuffleNets at 80; one seed each."""
