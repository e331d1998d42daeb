"""Locks of the kernel: they open by themselves when the process that holds them dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock that this process holds until `release`."""

    file: IO[bytes]

    def release(self) -> None:
        """Open the lock."""
        self.file.close()


def try_lock(path: Path) -> Lock | None:
    """The lock at `path`, or None when another process holds it.

    Record locks are the process's own: loader workers that it forks do not inherit them and cannot keep them shut. A
    process that tries a lock which it holds itself gets it again.
    """
    file = _opened(path)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return Lock(file=file)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait for the lock at `path` and hold it inside the block."""
    with _opened(path) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")
