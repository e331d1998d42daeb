"""The nets that one would pick instead: same data, epochs, augmentation and thread; each at its better side and rate.

    python -m benchmarks.score_vs_peers ../shared/data/recycle9.tar --epochs 200 --ours docs/rows/recycle9/seed*

Ours are finished runs of a recipe, whose After is compared. Peers learn from scratch, at two sides of the input; at the
first with two peak learning rates, since 0.2 suits some and others stay far behind at it, and at the second with the
better one. Runs that are there are not run again, and one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from solution import pipeline
from solution.contracts import Recipe, Row, Stage
from solution.data.loaders import Data
from solution.models.classifiers import Classifier
from solution.recipes.waste import shufflenet as waste_shufflenet
from solution.report.tables import Table
from solution.run_folder import read_rows, read_run
from solution.train.step import Train

PEERS = {
    "timm:lcnet_035": (48, 64),
    "timm:lcnet_050": (48, 64),
    "timm:tinynet_e": (48, 32),
    "timm:mobilenetv3_small_050": (48, 32),
    "torchvision:shufflenet_v2_x0_5": (32, 48),
    "pytorchcv:shufflenet_g3_wd4": (48, 64),
}
"""Net -> the two sides of its input."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One training of a net that one would pick instead, at a side in pixels and a peak learning rate."""

    name: str
    size: int
    lr: float


def recipe_of(peer: Peer, data: str, epochs: int, seed: int) -> Recipe:
    """A peer's training: our recipe's data and optimizer, the epochs asked for."""
    ours = waste_shufflenet.recipe()
    assert isinstance(ours.data, Data)
    step = Train(epochs=epochs, lr=peer.lr, ema_decay=0.998)
    return Recipe(
        name="peer",
        data=dataclasses.replace(ours.data, path=data, size=peer.size, cache_size=None),
        model=Classifier(name=peer.name),
        stages=(Stage(name="train", step=step),),
        before="train",
        after="train",
        seed=seed,
    )


def trained(recipe: Recipe, folder: Path) -> Row:
    """The last row of the finished run in `folder`, which goes on or starts when it is not there."""
    if (folder / "rows.json").exists() and len(read_rows(folder)) == len(recipe.stages):
        return read_rows(folder)[-1]
    return list(pipeline.run(recipe, folder, resume=(folder / "recipe.json").exists(), log=lambda _: None))[-1]


def table(peers: Mapping[Peer, Row], ours: Sequence[Row]) -> str:
    """Every peer at each side and rate, the best of them against ours."""
    ranked = sorted(peers.items(), key=lambda pair: pair[1].score)
    rows = [(peer.name, str(peer.size), f"{peer.lr:g}", *_figures([row])) for peer, row in ranked]
    lines = [Table(headings=("net", "side", "rate", "MACs", "macro F1", "score"), rows=tuple(rows)).markdown()]
    if ours:
        best = ranked[0][1].score
        score = statistics.mean(row.score for row in ours)
        _, f1, _ = _figures(ours)
        below = f"{1 - score / best:.1%} below the best peer's"
        lines.append(f"\nours, {len(ours)} run(s): macro F1 {f1}, score {score:.4f}, {below}")
    return "\n".join(lines)


def _figures(rows: Sequence[Row]) -> tuple[str, str, str]:
    f1, score = (statistics.mean(values) for values in ([r.quality["f1"] for r in rows], [r.score for r in rows]))
    return f"{rows[0].macs:,}", f"{f1:.4f}", f"{score:.4f}"


def arguments() -> argparse.Namespace:
    """What the shell asks for."""
    parser = argparse.ArgumentParser(description="Scores of other nets at equal epochs.")
    parser.add_argument("data", help="photos: folder or archive")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--ours", type=Path, nargs="*", default=[], help="run folders of ours, trained as many epochs")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.03, 0.2], help="peak learning rates of the peers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/peers"), help="where runs keep their files")
    return parser.parse_args()


def main() -> None:
    """Train what is not there yet, then print the table."""
    asked = arguments()
    peers = {}
    for name in asked.peers:
        first, second = PEERS[name]
        own = {peer: _row(peer, asked) for peer in (Peer(name=name, size=first, lr=lr) for lr in asked.lr)}
        better = min(own, key=lambda peer: own[peer].score)
        other = dataclasses.replace(better, size=second)
        peers |= own | {other: _row(other, asked)}
    print("\n" + table(peers, [read_run(folder).row("after") for folder in asked.ours]))


def _row(peer: Peer, asked: argparse.Namespace) -> Row:
    run = f"{peer.name.replace(':', '_')}_{peer.size}_lr{peer.lr:g}_{asked.epochs}_epochs_seed{asked.seed}"
    row = trained(recipe_of(peer, asked.data, asked.epochs, asked.seed), asked.work / run)
    print(f"{run}: score {row.score:.4f}", flush=True)
    return row


if __name__ == "__main__":
    main()
