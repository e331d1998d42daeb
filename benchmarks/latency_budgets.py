"""Latency budgets, checked afterwards: the cut net and the full one are timed in turns once more.

    OMP_NUM_THREADS=1 python -m benchmarks.latency_budgets
    OMP_NUM_THREADS=1 python -m benchmarks.latency_budgets --nets resnet18 --share 0.7 --round-to auto

Asks for half of the time that one image takes. "Left" is the median over 101 rounds of the ratio of both times by the
clock, measured after the step is done. Weights are random. "Load" is the machine's. About ten minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

NETS = ("resnet18", "mobilenet_v3_small", "mobilenet_v2_by_hand", "unet", "regnety_004", "vit_tiny_patch16_224")
ROUNDS = 101


class Inverted(nn.Module):
    """An inverted residual block."""

    def __init__(self, before: int, after: int, stride: int, wider: int = 6) -> None:
        super().__init__()
        inner = before * wider
        self.add = stride == 1 and before == after
        self.body = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in and out."""
        return x + self.body(x) if self.add else self.body(x)


def mobilenet_by_hand() -> nn.Module:
    """A MobileNetV2 as students write it."""
    stages = [(16, 24, 2, 2), (24, 32, 3, 2), (32, 64, 4, 2), (64, 96, 3, 1), (96, 160, 3, 2)]
    blocks = [
        Inverted(before if index == 0 else after, after, stride if index == 0 else 1)
        for before, after, count, stride in stages
        for index in range(count)
    ]
    stem = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(), Inverted(32, 16, 1, 1)]
    head = [nn.Conv2d(160, 640, 1, bias=False), nn.BatchNorm2d(640), nn.ReLU6(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*stem, *blocks, *head, nn.Flatten(), nn.Linear(640, 100))


class UNet(nn.Module):
    """Three levels with skips."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = nn.ModuleList(self.double(a, b) for a, b in ((3, width), (width, 2 * width)))
        self.middle = self.double(2 * width, 4 * width)
        self.raise_ = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in (2 * width, width))
        self.up = nn.ModuleList(self.double(2 * w, w) for w in (2 * width, width))
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def double(before: int, after: int) -> nn.Module:
        """Two convolutions."""
        layers = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2, H, W)."""
        skips = []
        for block in self.down:
            skips.append(block(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.middle(x)
        for raised, block in zip(self.raise_, self.up, strict=True):
            x = block(torch.cat([raised(x), skips.pop()], 1))
        return self.head(x)


def built(name: str) -> tuple[Any, Tensor]:
    """The net and an image."""
    torch.manual_seed(0)
    if name == "mobilenet_v2_by_hand":
        return mobilenet_by_hand().eval(), torch.randn(1, 3, 160, 160)
    if name == "unet":
        return UNet().eval(), torch.randn(1, 3, 128, 128)
    from benchmarks.prune_speed import built as published

    return published(name), torch.randn(1, 3, 224, 224)


def checked(cut: nn.Module, net: nn.Module, image: Tensor) -> float:
    """The median over rounds of the ratio of both times; nothing of the step's own measuring is used."""
    ratios = []
    with torch.inference_mode():
        for number in range(ROUNDS + 3):
            spent = {}
            for one in (cut, net) if number % 2 else (net, cut):
                start = time.perf_counter()
                one(image)
                spent[one] = time.perf_counter() - start
            ratios.append(spent[cut] / spent[net])
    return statistics.median(ratios[3:])


def main() -> None:
    """Print a row for each net."""
    from solution.compress.channels.step import PruneChannels
    from solution.contracts import InputError, StepContext
    from solution.evaluate.cost import macs

    parser = argparse.ArgumentParser(description="Latency budgets, checked afterwards in turns.")
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--round-to", default="1", help='a number, or "auto"')
    settings = parser.parse_args()
    multiple = settings.round_to if settings.round_to == "auto" else int(settings.round_to)
    print("| net | asked | left | off by | MACs left | multiple | load | s |\n|---|---|---|---|---|---|---|---|")
    for name in settings.nets:
        net, image = built(name)
        said: list[str] = []
        step = PruneChannels(latency=f"{settings.share:.0%}", round_to=multiple, verify=False)
        start = time.process_time()
        try:
            cut = step.run(net, StepContext(example=image, log=said.append)).eval()
        except InputError as error:
            print(f"| {name} | {settings.share} | {error} | | | | | |", flush=True)
            continue
        seconds = time.process_time() - start
        left = checked(cut, net, image)
        chosen = said[-1].rpartition(" ")[2] if said else multiple
        off, share = abs(left / settings.share - 1), macs(cut, image) / macs(net, image)
        row = (name, settings.share, f"{left:.3f}", f"{off:.1%}", f"{share:.3f}", chosen, f"{os.getloadavg()[0]:.0f}")
        print(f"| {' | '.join(map(str, row))} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
