"""What a data set is: its name, classes and counts, as a small value for tables and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """One data set in a few words.

    counts    {split: {class: number of pictures}}
    source    where it was read from
    rendered  made by this project's generator, thus no photos
    split     how train and val came apart: "as given", or how a val split was made
    """

    name: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    source: str
    rendered: bool = False
    split: str = "as given"

    @property
    def title(self) -> str:
        """What to call it wherever it is shown."""
        return "rendered demo data" if self.rendered else self.name
