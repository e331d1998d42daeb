"""The competition's score, lower is better: MACs and macro F1 in one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from solution.contracts import InputError


class Scoring(Protocol):
    """Any rule that makes one number, lower is better, of a cost and a macro F1.

    The first edition's cost was MACs (`Scorer`); a later one took measured seconds.
    """

    def __call__(self, cost: float, f1: float, /) -> float:
        """The score."""
        ...

    def warning(self, f1: float) -> str | None:
        """What to beware of at this F1, or None."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """MACs / reference_macs + F1 term.

    The F1 term is 1 below the cliff, 1 - F1 / reference_f1 from there to the reference, and half of that (so
    negative) above it.

    margin  a warning is given when F1 is as near to the cliff as this

    >>> round(Scorer()(1_083_210, 0.6149), 5)
    0.34305
    """

    reference_macs: int = 13_863_553
    reference_f1: float = 0.8365
    cliff_f1: float = 0.5
    margin: float = 0.02

    def __post_init__(self) -> None:
        if self.reference_macs <= 0:
            raise InputError(f"reference_macs must be above 0, got {self.reference_macs}")
        if not 0 <= self.cliff_f1 <= self.reference_f1 <= 1 or self.reference_f1 == 0:
            raise InputError(f"0 <= cliff_f1 <= reference_f1 <= 1 must hold, got {self.cliff_f1}, {self.reference_f1}")

    def __call__(self, macs: float, f1: float) -> float:
        """The score of `macs` multiply-accumulates and a macro F1 in [0, 1]."""
        return self.macs_term(macs) + self.f1_term(f1)

    def macs_term(self, macs: float) -> float:
        """The part that work costs."""
        if not 0 <= macs < float("inf"):
            raise InputError(f"MACs must be 0 or more, got {macs}")
        return macs / self.reference_macs

    def f1_term(self, f1: float) -> float:
        """The part that mistakes cost."""
        if not 0 <= f1 <= 1:
            raise InputError(f"macro F1 must lie in [0, 1], got {f1}: it is a fraction, not percent")
        if f1 < self.cliff_f1:
            return 1.0
        missing = 1 - f1 / self.reference_f1
        return missing if f1 < self.reference_f1 else 0.5 * missing

    def warning(self, f1: float) -> str | None:
        """A warning when `f1` is so near the cliff that other photos may push it off, else None."""
        if abs(f1 - self.cliff_f1) > self.margin:
            return None
        return (
            f"macro F1 {f1:.4f} is within {self.margin} of the cliff at {self.cliff_f1}: "
            "below it the F1 term is 1, whatever the MACs"
        )
