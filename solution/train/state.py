"""What a training needs to go on exactly after a kill: one file, written whole after every epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from solution.contracts import InputError
from solution.runtime import written_whole

STATE, HISTORY = "training.pt", "history.csv"


def save_state(folder: Path, state: dict[str, Any], history: list[dict[str, float]]) -> None:
    """Write the state and the history (one row per epoch) into `folder`."""
    with written_whole(folder / STATE) as path:
        torch.save(state | {"history": history}, path)
    with written_whole(folder / HISTORY) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def load_state(folder: Path, settings: str) -> dict[str, Any] | None:
    """The state in `folder`, or None when there is none. `InputError` when it is broken or of other settings."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read ({error}); delete it to start this step afresh") from error
    if state.get("settings") != settings:
        raise InputError(
            f"{path} belongs to a training with other settings; run without --resume, or into another folder.\n"
            f"  there: {state.get('settings')}\n  here:  {settings}"
        )
    return state
