"""What a page is made of: sections with tables, drawings, photos and text."""

from __future__ import annotations

from dataclasses import dataclass

from solution.report.style import Drawing
from solution.report.tables import Table


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo with what was said of it. `source` is a data URI, `side` its pixels, `name` where it lies."""

    source: str
    side: int
    alt: str
    lines: tuple[str, ...]
    name: str


@dataclass(frozen=True, kw_only=True)
class Block:
    """Text as it was written: a command, a plan, settings. `folded` hides it until it is asked for."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page, in the order of its fields; what it does not have is not shown.

    half  on a wide screen two such sections stand side by side
    """

    id: str
    title: str
    texts: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    photos: tuple[Photo, ...] = ()
    blocks: tuple[Block, ...] = ()
    half: bool = False
