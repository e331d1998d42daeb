"""Describe a data set: tables on the screen and one picture of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from solution.data.describe import Description

HELP = "describe a data set: classes, sizes, brightness, duplicates, unreadable files, and one picture of it"

_NAMES_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PATH, --zip-encoding and --out."""
    parser.add_argument("path", metavar="PATH", help="folder, .zip, .tar, .tar.gz, .npz or a torchvision name")
    parser.add_argument("--zip-encoding", metavar="NAME", help="of names in a .zip that are not UTF-8, such as gbk")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("runs/data"), help="where the picture goes")


def run(arguments: argparse.Namespace) -> None:
    """Print the tables, write the picture and print where it is."""
    from rich.console import Console
    from rich.progress import track

    from solution.data.describe import describe, save_overview
    from solution.data.readers import open_source

    console = Console(markup=False, highlight=False, emoji=False)
    source = open_source(arguments.path, arguments.zip_encoding)

    def follow(images: Iterable) -> Iterable:
        return track(images, "looking at the images", total=len(source.items), console=console, transient=True)

    description = describe(source, follow)
    for table in tables(description):
        console.print(table)
    picture = arguments.out / f"{source.name}.png"
    save_overview(source, description, picture)
    console.print(f"picture: {picture}", soft_wrap=True)


def tables(description: Description) -> list[Table]:
    """The description as rich tables: classes, sizes, duplicates, and unreadable files if there are any."""
    from solution.data.describe import across_splits

    made = [_class_table(description), _size_table(description), _duplicate_table(description)]
    leaks = across_splits(description.near)
    if leaks:
        rows = [[item.title for item in group] for group in leaks]
        made.append(_list_table("Near-duplicates across splits", [" = ".join(names) for names in rows]))
    if description.unreadable:
        made.append(_list_table("Unreadable files", [str(error) for error in description.unreadable]))
    return made


def _class_table(description: Description) -> Table:
    counts, brightness = description.counts(), description.brightness()
    table = _table(f"Classes of {description.info.title}", "class")
    for heading in (*(split or "images" for split in description.info.counts), "share", "brightness"):
        table.add_column(heading, justify="right")
    for name, row, light in zip(description.info.classes, counts, brightness, strict=True):
        table.add_row(name, *map("{:,}".format, row), f"{row.sum() / max(counts.sum(), 1):.1%}", f"{light:.0%}")
    table.add_section()
    table.add_row("all", *map("{:,}".format, counts.sum(axis=0)))
    table.caption = f"largest : smallest class = {description.imbalance():.1f}"
    return table


def _size_table(description: Description) -> Table:
    table = _table("Image size", "")
    for heading in ("min", "median", "max"):
        table.add_column(heading, justify="right")
    for name, values in description.sizes().items():
        style = "{:.2f}" if "/" in name else "{:.0f}"
        table.add_row(name, *map(style.format, values))
    return table


def _duplicate_table(description: Description) -> Table:
    from solution.data.describe import across_classes, across_splits

    table = _table("Duplicates", "")
    for heading in ("groups", "images", "across splits", "across classes"):
        table.add_column(heading, justify="right")
    for name, groups in (("equal pixels", description.copies), ("near (equal ones too)", description.near)):
        figures = (groups, [item for group in groups for item in group], across_splits(groups), across_classes(groups))
        table.add_row(name, *(f"{len(some):,}" for some in figures))
    return table


def _list_table(heading: str, lines: Sequence[str]) -> Table:
    table = _table(f"{heading} ({len(lines):,})", "")
    table.show_header = False
    for line in lines[:_NAMES_SHOWN]:
        table.add_row(line)
    if len(lines) > _NAMES_SHOWN:
        table.add_row(f"... and {len(lines) - _NAMES_SHOWN:,} more")
    return table


def _table(heading: str, first_column: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=heading, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, caption_justify="left")
    table.add_column(first_column)
    return table
