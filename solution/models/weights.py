"""Weights from a file, or of a net with the same names, put into a net of ours."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from solution.contracts import InputError

OWN = "own"
"""In place of a file's path: the weights that the net's own library downloads."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file. `InputError` when there is none, or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"there are no weights at {path}: give a .safetensors file with --weights, or {OWN!r}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no whole .safetensors file ({error})") from error


def fill(net: nn.Module, state: dict[str, Tensor], said: str) -> None:
    """Load `state`; `said` is where it came from. `InputError` when names or shapes are another net's."""
    own = net.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if wrong:
        raise InputError(f"{said}: its weights are of another net ({len(wrong)} differ: {wrong[0]} ...)")
    net.load_state_dict(state)
