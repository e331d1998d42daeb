"""Libraries that only some exports need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from solution.contracts import InputError


@contextlib.contextmanager
def needed(what: str, extra: str = "runtimes") -> Iterator[None]:
    """Imports inside that fail become an `InputError` which names the extra to install for `what`."""
    try:
        yield
    except ImportError as error:
        raise InputError(f'{what} needs {error.name}, which is not here: pip install -e ".[{extra}]"') from error
