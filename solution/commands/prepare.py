"""Bring a download into the layout that every other command reads."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

GO_ON = "nothing was written; run the same command again"
HELP = "turn downloaded images into <split>/<Class>/<name>.jpg, near-duplicates inside one split"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SRC, DST and how to get from one to the other."""
    parser.add_argument("source", metavar="SRC", help="folder, .zip, .tar, .tar.gz or .npz, with or without splits")
    parser.add_argument("target", metavar="DST", type=Path, help="a new folder, or an archive that ends in .tar")
    parser.add_argument("--trim-borders", action="store_true", help="cut off flat padding around photos")
    parser.add_argument("--max-side", type=int, default=128, metavar="PIXELS", help="shrink to this; 0 keeps sizes")
    parser.add_argument("--val-share", type=float, default=0.15, metavar="SHARE", help="of each class (default 0.15)")
    parser.add_argument("--resplit", action="store_true", help="make new splits although the source has some")
    parser.add_argument("--classes", default="", metavar="A=B,C", help="keep these classes alone; A=B renames A to B")
    parser.add_argument("--zip-encoding", metavar="NAME", help="of names in a .zip that are not UTF-8, such as gbk")
    parser.add_argument("--seed", type=int, default=0, help="of the splits made here")


def run(arguments: argparse.Namespace) -> None:
    """Prepare SRC and print what was done."""
    from rich.console import Console
    from rich.progress import track

    from solution.data.prepare import Preparation, prepare
    from solution.data.readers import open_source
    from solution.locks import claimed

    console = Console(markup=False, highlight=False, emoji=False)
    settings = Preparation(
        trim_borders=arguments.trim_borders,
        max_side=arguments.max_side,
        val_share=arguments.val_share,
        resplit=arguments.resplit,
        classes=class_names(arguments.classes),
        seed=arguments.seed,
    )
    source = open_source(arguments.source, arguments.zip_encoding)

    def follow(images: Iterable) -> Iterable:
        return track(images, "preparing the images", total=len(source.items), console=console, transient=True)

    with claimed(arguments.target):
        record = prepare(source, arguments.target, settings, follow)
    for line in summary(record):
        console.print(line, soft_wrap=True)
    console.print(f"written: {arguments.target}", soft_wrap=True)


def class_names(text: str) -> tuple[tuple[str, str], ...]:
    """ "clothes=Clothing,glass" -> (("clothes", "Clothing"), ("glass", "glass"))."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    pairs = [
        (old.strip(), new.strip() if found else old.strip()) for old, found, new in (p.partition("=") for p in parts)
    ]
    return tuple(pairs)


def summary(record: dict[str, Any]) -> list[str]:
    """The record of `prepare` in a few lines."""
    counts = {split: sum(classes.values()) for split, classes in record["counts"].items()}
    lines = [f"{split}: {count:,} images" for split, count in counts.items()]
    lines.append(f"splits {record['splits']}; {record['trimmed']:,} trimmed, {record['shrunk']:,} shrunk")
    lines.append(f"{len(record['copies_dropped']):,} copies dropped")
    lines.append(
        f"{record['near_duplicate_groups']:,} groups of near-duplicates, "
        f"{record['near_duplicate_groups_across_splits']:,} of them across splits"
    )
    if record["near_duplicate_groups_across_splits"]:
        lines[-1] += " (--resplit keeps each inside one)"
    if record["unreadable"]:
        lines.append(f"{len(record['unreadable']):,} unreadable images skipped: " + "; ".join(record["unreadable"]))
    return lines
