"""How near to its budget channel pruning comes: every ranking, in MACs, parameters and bytes, and what it costs.

    OMP_NUM_THREADS=1 python -m benchmarks.budgets ../shared/data/weights/resnet56-4bfd9763.th

Asks for 70 % of what each net has. "Left" is counted on the cut net, as users count it. Seconds are processor time of
plan and cut without the proof, one run, seed 0. About ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

RANKINGS, CURRENCIES, SHARE = ("uniform", "global", "per_cost"), ("macs", "params", "bytes"), 0.7
RECYCLE9 = "pretrained/recycle9/before.safetensors"
TIMM = ("regnety_004", "mobilenetv3_small_100", "resnet26")


def nets(resnet56: Path | None) -> dict[str, tuple[Any, Any]]:
    """{name: (net, example)}: a checkpoint of this project, a published ResNet-56, three of timm's, these random."""
    import timm
    import torch

    from benchmarks.prune_accuracy import published
    from solution.checkpoint import load

    torch.manual_seed(0)
    found = {"recycle9": (load(Path(RECYCLE9))[0], torch.randn(1, 3, 80, 80))}
    if resnet56 is not None:
        found["resnet56"] = (published(resnet56, 10), torch.randn(1, 3, 32, 32))
    return found | {name: (timm.create_model(name), torch.randn(1, 3, 224, 224)) for name in TIMM}


def measured(net: Any, example: Any, currency: str, ranking: str) -> tuple[float, float]:
    """The share that is left, and processor seconds."""
    from solution.compress.channels.step import PruneChannels, cost_of
    from solution.contracts import StepContext

    context = StepContext(example=example)
    step = PruneChannels(**{currency: f"{SHARE:.0%}"}, ranking=ranking, verify=False)
    start = time.process_time()
    cut = step.run(net.eval(), context)
    seconds = time.process_time() - start
    return cost_of(currency, cut, context) / cost_of(currency, net, context), seconds


def main() -> None:
    """Print a row for each net, currency and ranking."""
    parser = argparse.ArgumentParser(description="How near to its budget channel pruning comes.")
    parser.add_argument("resnet56", nargs="?", type=Path, help="published weights")
    print("| net | budget | ranking | left | off by | s |\n|---|---|---|---|---|---|")
    for name, (net, example) in nets(parser.parse_args().resnet56).items():
        for currency, ranking in itertools.product(CURRENCIES, RANKINGS):
            left, seconds = measured(net, example, currency, ranking)
            off = f"{abs(left / SHARE - 1):.2%}"
            print(f"| {name} | {currency} | {ranking} | {left:.4f} | {off} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
