"""Text for screens and files: names that come from data, archives and other people's files, and aligned columns."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

_INVISIBLE = re.compile(
    "[\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]|[\ud800-\udfff]"
)
"""Marks that turn the direction of writing, hide, or are no characters at all (bytes of a name that is not UTF-8).
Those that join emoji and Persian letters stay."""
_NOT_IN_FILES = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)
_MOST_BYTES = 200


def printable(text: str, lines: bool = False) -> str:
    r"""`text` as a terminal, a page or a log may get it: control characters, escape sequences and marks that turn or
    hide other characters are spelled out ("\x1b", "\u202e").

    lines  line breaks and tabs stay: for a text of our own that has names in it
    """
    spared = "\n\t" if lines else ""
    spelled = (
        char.encode("unicode_escape").decode()
        if char not in spared and (unicodedata.category(char) == "Cc" or _INVISIBLE.match(char))
        else char
        for char in text
    )
    return text if text.isascii() and text.isprintable() else "".join(spelled)


class InputError(ValueError):
    """Something the user handed us is wrong. The message, always `printable`: what, where, and what to do."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message), lines=True))


def safe_name(name: str, taken: set[str] | None = None) -> str:
    """One part of a path, made of `name`: it leads nowhere else, and every file system takes it.

    Separators, control characters and whatever Windows forbids become "_"; names that Windows keeps for devices get
    a "_"; dots at the ends go; at most 200 bytes. A name that is safe already stays as it is.
    taken  names that are there already, case-folded: on a clash, and be it in case alone, "~2" and so on is added;
           the result is added to the set
    """
    name = _INVISIBLE.sub("_", unicodedata.normalize("NFC", name))
    name = _NOT_IN_FILES.sub("_", name).strip().strip(".").strip()
    name = name.encode()[:_MOST_BYTES].decode(errors="ignore").rstrip(". ") or "unnamed"
    stem, dot, ending = name.partition(".")
    if _RESERVED.fullmatch(stem.rstrip()):
        name = f"{stem.rstrip()}_{dot}{ending}"
    if taken is None:
        return name
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}~{number}"
    taken.add(free.casefold())
    return free


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean ...?)" with the closest of the names that are right; "" when none is close."""
    close = closest(name, known)
    return f" (did you mean {close[0]}?)" if close else ""


def closest(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The names most like `name`, whatever their case, nearest first. cutoff: 0 takes all, 1 equal ones alone."""
    spelled = {one.casefold(): one for one in known}
    return [spelled[one] for one in difflib.get_close_matches(name.casefold(), spelled, n=most, cutoff=cutoff)]


def texts_in(value: Any) -> Iterator[str]:
    """All texts in what JSON gives, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from texts_in(item)


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
