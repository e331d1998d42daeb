"""How a trial may end before its end. None of these is a failure."""

from __future__ import annotations


class TrialPaused(Exception):  # noqa: N818 - no error
    """The trial rests at a rung; it may go on later."""


class TrialRejected(Exception):  # noqa: N818 - no error
    """The trial is hopeless: `reason`, and by how much (`excess`, in units of the score) it misses."""

    def __init__(self, reason: str, excess: float) -> None:
        super().__init__(reason)
        self.excess = excess


class Stopped(Exception):  # noqa: N818 - no error
    """The worker was told to stop; its trial is left to whoever comes next."""
