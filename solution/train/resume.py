"""What a training needs to go on exactly after a kill: one file, written whole after every epoch, never unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solution.contracts import InputError
from solution.run_folder import STATE, write_history
from solution.runtime import written_whole

_CHECKSUM = "sha256"


def save_state(folder: Path, state: dict[str, Any], history: list[dict[str, float]]) -> None:
    """Write the state and the history (one row per epoch) into `folder`."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    rest = json.dumps(_without_tensors(state | {"history": history}, tensors))
    with written_whole(folder / STATE) as path:
        save_file(tensors, path, metadata={"training": rest, _CHECKSUM: _checksum(rest, tensors)})
    write_history(folder, history)


def load_state(folder: Path, settings: str) -> dict[str, Any] | None:
    """The state in `folder`, or None when there is none. `InputError` when it is broken or of other settings."""
    from safetensors import SafetensorError, safe_open

    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            rest, found = file.metadata()["training"], file.metadata().get(_CHECKSUM)
        if found not in (None, _checksum(rest, tensors)):  # states of older versions have none
            raise ValueError("its SHA-256 is not the one that it names")
        state = _with_tensors(json.loads(rest), tensors)
        there = state["settings"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); delete it to start this step afresh") from error
    if there != settings:
        raise InputError(
            f"{path} belongs to a training with other settings; run without --resume, or into another folder.\n"
            f"  there: {there}\n  here:  {settings}"
        )
    return state


def _checksum(rest: str, tensors: Mapping[str, Tensor]) -> str:
    content = hashlib.sha256(rest.encode())
    for name in sorted(tensors):
        content.update(repr((name, tensors[name].dtype, tensors[name].shape)).encode())
        content.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` for JSON: tensors move into `tensors`; keys that are numbers stay numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _without_tensors(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, tensors) for item in value]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _with_tensors(item, tensors) for key, item in value["pairs"]}
    return [_with_tensors(item, tensors) for item in value] if isinstance(value, list) else value
