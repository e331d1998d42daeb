"""Rows in MLflow: each row a run with parameters, metrics and files, nested under the run of its recipe.

    python -m solution run RECIPE --track                          notes in runs/mlflow.db
    mlflow ui --backend-store-uri sqlite:///runs/mlflow.db         shows them

Without MLflow nothing is missing: `rows.json` and `rows.csv` are complete.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.contracts import InputError, Row
from solution.report.plots import training_curves
from solution.run_folder import (
    HISTORY,
    MODEL,
    PACKED,
    PLAN,
    PLAN_TEXT,
    RECIPE,
    ROWS,
    TABLE,
    History,
    Run,
    flat,
    read_run,
)
from solution.shell import without_password

DEFAULT = "sqlite:///runs/mlflow.db"
FOLDER, STEP, PARENT = "featherweight.folder", "featherweight.step", "mlflow.parentRunId"
_SQLITE = "sqlite:///"
_FILES = (MODEL, PACKED, PLAN, PLAN_TEXT, HISTORY)
_EXPORTED = ("*.onnx", "*.xml", "*.bin", "*.pt2")
_SUMMARIES = (RECIPE, ROWS, TABLE, "*.md", "*.svg")
"""What a run's folder holds besides its steps."""

_WORDS = ("step", "commit", "hardware", "timed_on", "seed")
_MOST = 1000
"""Metrics that one call may send."""


class ServerDownError(InputError):
    """A server that may answer later."""


def open_store(uri: str = "") -> Store:
    """The store at `uri`, made when it is a SQLite file that is not there; "" means `DEFAULT`.

    `InputError` without MLflow, and for a store that cannot be reached.
    """
    # It otherwise retries a server that is down for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    os.environ.setdefault("PGCONNECT_TIMEOUT", "4")
    try:
        from mlflow import MlflowClient
        from mlflow.store.db import utils
    except ImportError as error:
        raise InputError(f'tracking needs {error.name}, which is not here: pip install -e ".[tracking]"') from error
    uri, artifacts = uri or DEFAULT, None
    if uri.startswith(_SQLITE):
        path = Path(uri.removeprefix(_SQLITE)).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        uri, artifacts = f"{_SQLITE}{path}", (path.parent / "mlartifacts").as_uri()
    utils.MAX_RETRY_COUNT = 1  # of databases; the pauses in between grow to minutes
    try:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow's, SQLAlchemy's, those of each driver
        down = uri.startswith(("http://", "https://")) or type(error).__name__ == "OperationalError"
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        kind = ServerDownError if down and not uri.startswith(_SQLITE) else InputError
        cause: BaseException | None = error
        while cause is not None:  # what the system said, beneath the words of three libraries
            reason = (isinstance(cause, OSError) and cause.strerror) or reason
            cause = cause.__cause__ or cause.__context__
        raise kind(without_password(f"cannot track in {uri}: {reason}")) from error
    return Store(client=client, uri=uri, artifacts=artifacts)


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where runs are noted.

    artifacts  where files go; None leaves that to the server
    """

    client: Any
    uri: str
    artifacts: str | None

    @property
    def name(self) -> str:
        """The URI as it may be shown."""
        return without_password(self.uri)

    def note(self, folder: Path) -> None:
        """Note what the run in `folder` has done and the store does not hold yet. May be called after every row."""
        run = read_run(folder)
        experiment = self._experiment(run.recipe)
        parent = self._parent(experiment, run)
        for row in run.rows:
            self._row(experiment, parent, run, row)
        for path in sorted(path for pattern in _SUMMARIES for path in folder.glob(pattern)):
            self.client.log_artifact(parent, str(path))
        if run.checkpoints():  # they are written last
            self.client.set_terminated(parent)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        return found.experiment_id if found else self.client.create_experiment(name, artifact_location=self.artifacts)

    def _found(self, experiment: str, tags: Mapping[str, str]) -> Any:
        """The run with these tags, or None."""
        words = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
        found = self.client.search_runs([experiment], filter_string=words, max_results=1)
        return found[0] if found else None

    def _parent(self, experiment: str, run: Run) -> str:
        tags = {FOLDER: str(run.folder.resolve())}
        found = self._found(experiment, tags | {STEP: "all"})
        if found is None:
            name = f"{run.recipe} on {run.data()}, seed {run.seed}: {run.folder.name}"
            found = self.client.create_run(experiment, tags=tags | {STEP: "all"}, run_name=name)
            self._send(found.info.run_id, {**run.settings, "seed": run.seed}, [])
        return found.info.run_id

    def _row(self, experiment: str, parent: str, run: Run, row: Row) -> None:
        """Note a row, or what has been measured of it since."""
        tags = {PARENT: parent, STEP: row.step}
        found = self._found(experiment, tags)
        if found is None:
            start = round(1e3 * (time.time() - row.seconds))
            found = self.client.create_run(experiment, start_time=start, tags=tags, run_name=row.step)
            history = run.histories().get(row.step, {})
            self._send(found.info.run_id, _params(run, row), list(_of_epochs(history)))
            self._files(found.info.run_id, run.folder / row.step, history)
            self.client.set_terminated(found.info.run_id)
        new = [item for item in _of_row(row) if item[0] not in found.data.metrics]
        self._send(found.info.run_id, {}, new)
        if new and row.exported:
            for path in sorted(path for pattern in _EXPORTED for path in (run.folder / row.step).glob(pattern)):
                self.client.log_artifact(found.info.run_id, str(path))

    def _send(self, run_id: str, params: Mapping[str, Any], metrics: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric, Param

        now = round(1e3 * time.time())
        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])
        for start in range(0, len(metrics), _MOST):
            some = [Metric(name, value, now, step) for name, value, step in metrics[start : start + _MOST]]
            self.client.log_batch(run_id, metrics=some)

    def _files(self, run_id: str, folder: Path, history: History) -> None:
        """Checkpoint, plan, history and its plot, as far as the step has them."""
        for path in (folder / name for name in _FILES):
            if path.is_file():
                self.client.log_artifact(run_id, str(path))
        if history:
            self.client.log_text(run_id, training_curves({folder.name: history}).file_text(), "curves.svg")


def _params(run: Run, row: Row) -> dict[str, Any]:
    """The settings of the step, and what they are about."""
    about = {name: getattr(row, name) for name in _WORDS}
    own = ("data.", "model.", f"{row.step}.")
    return about | {key: value for key, value in run.settings.items() if key.startswith(own)}


def _of_row(row: Row) -> Iterator[tuple[str, float, int]]:
    """(name, value, step) of every figure that was measured."""
    for name, value in flat(row).items():
        if name not in _WORDS and isinstance(value, int | float):
            yield name, float(value), 0


def _of_epochs(history: History) -> Iterator[tuple[str, float, int]]:
    for name, values in history.items():
        if name != "epoch":
            yield from (
                (f"epoch/{name}", value, int(epoch)) for epoch, value in zip(history["epoch"], values, strict=True)
            )


def _quoted(text: str) -> str:
    """`text` as MLflow's filters take it: they know no escapes, but two kinds of quotes."""
    return f'"{text}"' if "'" in text else f"'{text}'"
