"""`python -m solution inspect FILE`: what lies in any file of ours, layer by layer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from solution.commands.model import FORMS, add_model_flags, model_of
from solution.text import columns

if TYPE_CHECKING:
    from solution.formats.base import Listing

HELP = "list what lies in a file: layer, shape, bits, bytes, share"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE."""
    parser.add_argument("model", metavar="MODEL", help=f"an exported file, or {FORMS}")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print one line per layer, then the sums."""
    from solution.export.files import listing

    found = listing(model_of(arguments))
    count = sum(line.count for line in found.lines)
    print(
        f"{arguments.model}: {found.kind}, {len(found.lines)} tensors, {count:,} numbers, {found.num_bytes:,} bytes\n"
    )
    print("\n".join(table(found)))
    if found.notes:
        print("\n" + "\n".join(found.notes))


def table(found: Listing) -> list[str]:
    """The lines of the table."""
    rows = [("layer", "shape", "bits", "bytes", "share")]
    for line in found.layers():
        shape = " x ".join(map(str, line.shape)) or "1"
        rows.append((line.name, shape, f"{line.bits:.2f}", f"{line.num_bytes:,.0f}", _share(line.num_bytes, found)))
    rest = found.description_bytes
    rows.append(("(header, names, graph)", "", "", f"{rest:,.0f}", _share(rest, found)))
    count = sum(line.count for line in found.lines)
    bits = f"{8 * found.num_bytes / count:.2f}" if count else ""
    rows.append(("all", "", bits, f"{found.num_bytes:,}", "100.0 %"))
    return columns(rows, left=(0, 1))


def _share(num_bytes: float, found: Listing) -> str:
    return f"{100 * num_bytes / max(found.num_bytes, 1):.1f} %"
