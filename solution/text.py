"""Tables as plain text, for screens and the text of plans."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def columns(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Lines with the cells of `rows` below each other: the columns `left` to the left, the others to the right.

    Widths are counted in cells of the screen, of which a Chinese character takes two.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]

    def padded(place: int, cell: str) -> str:
        space = " " * (widths[place] - cell_len(cell))
        return cell + space if place in left else space + cell

    return ["  ".join(padded(place, cell) for place, cell in enumerate(row)).rstrip() for row in rows]
