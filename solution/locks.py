"""Locks of the kernel: they open by themselves when the process that holds them dies, however it dies.

So what a dead process left is never in the way: nobody has to judge whether a lock is stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from solution.contracts import InputError


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


@contextlib.contextmanager
def made_by_one(path: Path) -> Iterator[None]:
    """Inside, no other process makes the file at `path`: it waits, and should look again whether it is there.

    Where no lock can be made there is none: making the file fails as well, and says why.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(held(lock))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()  # whoever waits for it has it open


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


_claimed: set[Path] = set()
"""Places that this process claims: the kernel gives a process its own locks again."""


@contextlib.contextmanager
def claimed(target: Path) -> Iterator[None]:
    """Inside, `target`, a file or folder that a command writes, is this process's alone.

    `InputError` names the process that has claimed it.
    """
    path = _lock_of(target)
    if path in _claimed:
        raise InputError(f"{target} is already being written by this process: choose another --out")
    made = [folder for folder in path.parents if not folder.exists()]
    lock = _taken(target, path)
    _claimed.add(path)
    try:
        yield
    finally:
        _claimed.discard(path)
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever opened it before looks again
            for folder in made:
                folder.rmdir()  # unless something was written there
        lock.close()


def _lock_of(target: Path) -> Path:
    """Beside the target, which may not be there yet; inside it, where nothing can be written beside it."""
    target = target.resolve()  # links and other spellings lead to one lock
    beside = os.access(next(folder for folder in target.parents if folder.exists()), os.W_OK)
    return target.parent / f".{target.name}.lock" if beside or not target.is_dir() else target / ".lock"


def _taken(target: Path, path: Path) -> IO[bytes]:
    while True:
        try:
            file = _opened(path)
        except OSError as error:
            raise InputError(f"{target} cannot be written ({error.strerror}): name another place") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                holder = path.read_text(encoding="utf-8").strip() or "another process"
            raise InputError(
                f"{target} is being written by {holder}: wait for it, stop it, or choose another --out"
            ) from error
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()  # its holder has just ended and removed it
    note = f"process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with contextlib.suppress(OSError):  # on a full disk the lock holds without it
        file.truncate(0)
        os.write(file.fileno(), note.encode())
    return file
