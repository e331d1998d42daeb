"""SHIP: nets in the forms in which they leave, each proven to say what the net said.

packed          one file that holds a checkpoint in as few bytes as are exact: codecs, grid, planes and bits say how
                tensors become bytes, streams and coder how these are coded, table and container what frames them
onnx_file, openvino_file, pt2_file   formats of the runtimes: write, quantize to int8, open
about, exported  what a file says of itself; an opened file, callable on a batch
making, parity   write, compare with the net, and only then keep
files, listing   load, open or list any file of ours
runtimes         any file of ours in any runtime
shipping         forms of a finished net, by name, for rows
detecting        what is different about detectors
extras           libraries that only some of this needs
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
