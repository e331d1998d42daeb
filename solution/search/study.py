"""A study of the right space: where its trials are kept, what is minimized, how a trial may end, the sampler.

Trials lie in a journal file, or in a database at any SQLAlchemy URL. The journal is Optuna's format. Its lock is the
kernel's, so that a killed worker never blocks the others; half a line that a kill left behind is taken off before the
next one is written; results are on the disk before a worker goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError

from solution.contracts import InputError
from solution.evaluate.score import Scorer
from solution.locks import held
from solution.runtime import needed
from solution.shell import without_password

OBJECTIVES = {"score": ("minimize",), "front": ("maximize", "minimize")}
"""What is sought: the best score, or the front of macro F1 against MACs."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a net costs and how good it is on the dev split."""

    macs: int
    f1: float
    score: float

    def values(self, objective: str) -> tuple[float, ...]:
        """As Optuna gets them."""
        return (self.score,) if objective == "score" else (self.f1, float(self.macs))

    def minimized(self, objective: str) -> tuple[float, ...]:
        """As they are compared: less is better."""
        return (self.score,) if objective == "score" else (-self.f1, float(self.macs))


def figures_of(trial: FrozenTrial) -> Figures | None:
    """The figures of a trial that was trained to its end, else None."""
    if trial.state != TrialState.COMPLETE:
        return None
    return Figures(**{name: trial.user_attrs[name] for name in ("macs", "f1", "score")})


def open_study(storage: BaseStorage, name: str, objective: str, about: Mapping[str, Mapping[str, Any]]) -> Study:
    """The study called `name`, new or gone on with.

    about: what must not change from one start to the next. `InputError` names what did.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"the objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    about = {"objective": {"objective": objective}, **about}
    known = name in optuna.get_all_study_names(storage)
    if known:
        study = optuna.load_study(study_name=name, storage=storage)
        _check(name, study.user_attrs.get("about", about), about)
    else:
        directions: Any = OBJECTIVES[objective]
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    if "about" not in study.user_attrs:
        study.set_user_attr("about", about)
    return study


def _check(name: str, found: Mapping[str, Mapping[str, Any]], here: Mapping[str, Mapping[str, Any]]) -> None:
    for part in here:
        there, now = found.get(part, {}), here[part]
        names = [key for key in {**there, **now} if there.get(key) != now.get(key)]
        if names:
            both = [f"{key}: {there.get(key, 'not there')} there, {now.get(key, 'not')} here" for key in names]
            raise InputError(
                f"the study {name!r} was begun with another {part} ({'; '.join(both)}); choose another --name or --out"
            )


def objective_of(study: Study) -> str:
    """The key of `OBJECTIVES` that `study` was made for."""
    return study.user_attrs["about"]["objective"]["objective"]


def root_of(trial: FrozenTrial) -> int:
    """The number of the trial that `trial` goes on with; its own for a new one."""
    return trial.user_attrs.get("root", trial.number)


def rungs_of(trial: FrozenTrial) -> dict[int, tuple[float, ...]]:
    """{epochs: values, minimized} of the rungs that a trial has reached."""
    return {int(epoch): tuple(values) for epoch, values in trial.user_attrs.get("rungs", {}).items()}


def is_rejected(trial: FrozenTrial) -> bool:
    """Whether a trial was refused before it was paid for."""
    return "refused" in trial.user_attrs


def latest(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """{root: the trial that went furthest of those that go on with it}."""
    return {root_of(trial): trial for trial in trials}


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One line of the table: a trial, what it drew, and how it ended.

    root    the trial that this one went on with
    epochs  of the last rung, when it rests
    """

    number: int
    root: int
    state: str
    epochs: int | None
    macs: int | None
    f1: float | None
    score: float | None
    drawn: dict[str, Any]
    reason: str = ""


def tried(trial: FrozenTrial) -> Tried:
    """The table's line of `trial`."""
    macs, f1 = trial.user_attrs.get("macs"), trial.user_attrs.get("f1")
    score = trial.user_attrs.get("score")
    if score is None and macs is not None and f1 is not None:
        score = Scorer()(macs, f1)
    return Tried(
        number=trial.number,
        root=root_of(trial),
        state=_state(trial),
        epochs=max(rungs_of(trial), default=None) if trial.state != TrialState.COMPLETE else None,
        macs=macs,
        f1=f1,
        score=score,
        drawn=dict(trial.params),
        reason=trial.user_attrs.get("refused") or trial.user_attrs.get("error", ""),
    )


def _state(trial: FrozenTrial) -> str:
    if is_rejected(trial):
        return "refused"
    names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "resting", TrialState.FAIL: "failed"}
    return names.get(trial.state, "running")


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
    """The storage at `where`: a URL (``postgresql://...``, ``sqlite:///trials.db``), the address of a proxy
    (``grpc://host:13000``, see `solution.commands.storage`), else a journal file's path.

    `InputError` when it cannot be reached, without the URL's password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    shown = without_password(str(where))
    try:
        if str(where).startswith("grpc://"):
            return _proxied(str(where))
        if "://" in str(where):
            return _database(_DRIVEN.sub("postgresql+psycopg://", str(where)))
        path = Path(where)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is no journal of a search ({error}); name another file") from error
    except InputError:
        raise
    except ImportError as error:
        extra = "grpc" if "grpc" in str(error) else "postgres"
        raise InputError(
            f'the storage {shown} needs a driver that is not here: pip install -e ".[{extra}]" ({error})'
        ) from error
    except Exception as error:  # every driver has its own errors
        reason = str(error).splitlines()[0].rstrip(". ") if str(error) else type(error).__name__
        raise InputError(
            f"cannot reach the storage {shown}: {without_password(reason)}. "
            "Check the key, or leave --storage away to keep trials in a file"
        ) from error


_DRIVEN = re.compile("^postgres(ql)?://")
"""Which driver a bare URL means depends on SQLAlchemy's version; the extra brings this one."""
PROXY_PORT = 13000
_REACHED_S = 10.0


def _database(url: str) -> BaseStorage:
    """The database at `url`. Machines that begin at the same moment all make its tables, and all but one fail at it."""
    for pause_s in (0.2, 0.5, 1.0, 2.0, 4.0):
        with contextlib.suppress(IntegrityError, ProgrammingError):
            return get_storage(url)
        time.sleep(pause_s)
    return get_storage(url)


def _proxied(where: str) -> BaseStorage:
    """The storage behind the proxy at `where`."""
    with needed("a storage at grpc://", "grpc"):
        import grpc  # noqa: F401 - Optuna imports it late, with less of a message
    place = urlsplit(where)
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        proxy = GrpcStorageProxy(host=place.hostname or "localhost", port=place.port or PROXY_PORT)
    proxy.wait_server_ready(timeout=_REACHED_S)
    return proxy


class Sampler(TPESampler):
    """Multivariate TPE (Falkner et al., 2018, arXiv:1807.01774) over a space that is known.

    The univariate one takes over 100 ms a trial at 1,000 trials of 15 settings. Running trials count as bad ones, so
    that workers do not all try the same. What is drawn for trial `number` depends on `seed`, that number and the
    trials before alone, not on the worker.
    """

    def __init__(self, kinds: Mapping[str, BaseDistribution], seed: int, number: int) -> None:
        mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        super().__init__(multivariate=True, constant_liar=True, seed=mixed)
        self._known = {name: kind for name, kind in sorted(kinds.items()) if not kind.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space. Optuna would look for it in all trials, which takes longer than drawing from it."""
        return self._known


class TrialPaused(Exception):  # noqa: N818 - no error
    """The trial rests at a rung; it may go on later."""


class TrialRejected(Exception):  # noqa: N818 - no error
    """The trial is hopeless: `reason`, and by how much (`excess`, in units of the score) it misses."""

    def __init__(self, reason: str, excess: float) -> None:
        super().__init__(reason)
        self.excess = excess


class Stopped(Exception):  # noqa: N818 - no error
    """The worker was stopped; its trial is left to whoever comes next."""
