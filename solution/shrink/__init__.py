"""SHRINK: from a trained net to the smallest that keeps its quality, in one call.

goal       what may be lost, what may be spent
subject    the net, its pictures at any side, how it is judged
effort     the limit of time, and the journal with which a stopped search goes on
proposals  ways to cut a net, as steps with a budget
rounds     a round of training on the logits of the net as it came
measured   the net as it came, in its runtime; files made and timed once
search     race, go further, back off
ship       exported files: judged, timed
choice     which one it is; the verdict on val
result     the table, the picture, the page
run        all of it
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Verb(types.ModuleType):
    """This package, which can be called as well: ``fw.shrink`` names both."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from solution.shrink.run import shrink

        return shrink(*args, **options)


sys.modules[__name__].__class__ = _Verb
