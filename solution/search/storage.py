"""Where trials are kept: a journal file, or a database at any SQLAlchemy URL.

The journal is Optuna's format. Its lock is the kernel's, so that a killed worker never blocks the others; half a line
that a kill left behind is taken off before the next one is written; results are on the disk before a worker goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from solution.contracts import InputError
from solution.search.locks import held

_FINISHED = {int(state) for state in TrialState if state.is_finished()}
_CHUNK = 1 << 16


class Journal(JournalFileBackend):
    """Optuna's journal file with a lock that opens when its holder dies."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """Write `logs`, one line each. A result is forced to the disk; the rest survives a kill as it is."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with held(self._path.with_name(f"{self._path.name}.lock")), self._path.open("r+b") as file:
            _drop_half_line(file)
            file.write(text.encode())
            if any(log.get("state") in _FINISHED for log in logs):
                file.flush()
                os.fsync(file.fileno())


def _drop_half_line(file: IO[bytes]) -> None:
    """Cut `file` after its last newline and stand there: whoever wrote the rest was killed while it did."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _CHUNK)
        file.seek(start)
        chunk = file.read(end - start)
        if b"\n" in chunk:
            end = start + chunk.rindex(b"\n") + 1
            break
        end = start
    file.truncate(end)
    file.seek(end)


def open_storage(where: str | Path) -> BaseStorage:
    """The storage at `where`: a URL (``postgresql://...``, ``sqlite:///trials.db``), else a journal file's path.

    `InputError` when it cannot be reached, without the URL's password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if "://" in str(where):
            return get_storage(str(where))
        path = Path(where)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is no journal of a search ({error}); name another file") from error
    except Exception as error:  # every driver has its own errors
        reason = str(error).splitlines()[0].rstrip(". ") if str(error) else type(error).__name__
        raise InputError(
            f"cannot reach the storage {_without_password(str(where))}: {reason}. "
            "Check the key, or leave --storage away to keep trials in a file"
        ) from error


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url

    with contextlib.suppress(Exception):
        return make_url(url).render_as_string(hide_password=True)
    return url
