"""Nets that one would pick instead, as points of the front plot."""

from __future__ import annotations

from solution.report.front import Point

PEERS = (
    Point(name="lcnet_035", macs=1_530_000, f1=0.727),
    Point(name="mobilenetv3_small_050", macs=1_650_000, f1=0.736),
    Point(name="lcnet_050", macs=2_540_000, f1=0.721),
    Point(name="shufflenet_v2_x0_5", macs=880_000, f1=0.673),
    Point(name="4,8,4", macs=1_688_940, f1=0.734),
    Point(name="2,5,2", macs=1_083_210, f1=0.731),
)
"""timm's at 48 px, torchvision's at 32, our ShuffleNets at 80; one seed each: recycle9's val split after 60 plain
epochs."""
