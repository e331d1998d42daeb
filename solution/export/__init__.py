"""Nets in the forms in which they ship, each proven to compute what its net computes.

config      what to export
exporter    write it, compare it with the net, and only then keep it
int8        which layers stay in float
parity      what is compared: outputs number by number, quality on val
web, page/  a folder with a page that classifies photos in a browser
packed/     the packed file: a checkpoint in as few bytes as are exact
files       load, open or list any file of ours
runtimes    any file of ours in any runtime
shipping    forms of a finished net, by name, for rows
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Verb(types.ModuleType):
    """This package, which can be called as well: ``fw.export`` names both."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from solution.export.exporter import export

        return export(*args, **options)


sys.modules[__name__].__class__ = _Verb
