"""JUDGE: what a net costs, whether its cost can be trusted, how well it predicts, and its score.

cost      MACs in the competition's convention and at the dispatcher, parameters, sparsity, bytes
audit     compares both counts module by module and refuses a net that hides work (tape, charges)
classify  macro F1, accuracy and confusion of any callable on a batch; probabilities for photos without labels
detect    precision, recall and mAP of any callable on a batch
speed     latency, throughput, memory and loading of any runtimes, in turns
score     the competition's score as a small value
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Verb(types.ModuleType):
    """This package, which can be called as well: ``fw.evaluate`` names both."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from solution.evaluate.classify import evaluate

        return evaluate(*args, **options)


sys.modules[__name__].__class__ = _Verb
