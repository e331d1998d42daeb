"""Rows on disk: `rows.json` is read back, `rows.csv` is for spreadsheets."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from solution.contracts import InputError, Row
from solution.runtime import write_text, written_whole


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Write `rows.json` and `rows.csv` into `folder`, each whole or not at all."""
    write_text(folder / "rows.json", json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    table = [flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in table for name in row))
    with written_whole(folder / "rows.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(table)


def read_rows(folder: Path) -> list[Row]:
    """The rows in `folder`; none when it has no `rows.json`."""
    path = folder / "rows.json"
    if not path.exists():
        return []
    try:
        return [Row(**fields) for fields in json.loads(path.read_text())]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not a table of rows ({error}); delete the folder and run again") from error


def machines(rows: Iterable[Row]) -> str:
    """The hardware of the trainings, and that of the times where it is another."""
    rows = list(rows)
    trained = list(dict.fromkeys(row.hardware for row in rows))
    timed = [name for name in dict.fromkeys(row.timed_on for row in rows) if name and name not in trained]
    return "; ".join([*trained, *(f"times: {name}" for name in timed)])


def flat(row: Row) -> dict[str, Any]:
    """One level: quality and latencies become columns such as `quality.f1` and `latency_ms.onnx`."""
    return one_level(dataclasses.asdict(row))


def one_level(fields: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}, however deep."""
    columns: dict[str, Any] = {}
    for name, value in fields.items():
        inner = one_level(value) if isinstance(value, Mapping) else None
        columns |= {name: value} if inner is None else {f"{name}.{key}": item for key, item in inner.items()}
    return columns
