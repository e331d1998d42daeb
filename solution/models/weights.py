"""Weights from a file of any kind, or of a net with the same names, put into a net. No file of weights runs code."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from solution.contracts import InputError, ModelSettings
from solution.runtime import limit
from solution.text import closest

OWN = "own"
"""In place of a file's path: the weights that the net's own library downloads."""
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
             "state_dict_ema", "model_ema", "ema_state_dict", "ema", "generator")  # fmt: skip
"""Under which a checkpoint keeps the state dict, the one that is taken first in front."""
_CLASSES = ("classes", "class_names", "class_to_idx", "idx_to_class", "names", "label_names", "labels", "categories",
            "id2label", "label2id")  # fmt: skip
"""Under which a checkpoint keeps the names of its classes, and where else it keeps such things."""
_SETTINGS = ("meta", "hyper_parameters", "config", "args", "model", "net")
_COUNTERS = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")
"""Last words of the names of tensors that decide nothing: batches counted, or left behind by profilers."""
_MOST_UNKNOWN = 200
_MOST_WRAPPERS = 4
_SHOWN = 3


def read_state(path: Path) -> dict[str, Tensor]:
    """`read_weights` without the names of classes."""
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in a .pt, .pth, .th, .bin, .ckpt or .safetensors file, found by its content, and the names of
    classes that lie beside it, in the order of the outputs; none when there are none.

    Objects that a checkpoint holds besides its tensors (arguments, callbacks) come as empty shells: no code of theirs
    is run. `InputError` for a file without weights, and for a module that was pickled whole.
    """
    if not path.is_file():
        raise InputError(f"there are no weights at {path}: name a .pt, .pth, .bin, .ckpt or .safetensors file")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        return _read_safetensors(path), ()
    content = _unpickled(path)
    if isinstance(content, _Shell) or any(isinstance(part, _Shell) and part.is_module for part in _parts(content)):
        raise InputError(_whole_module(path, content))
    state = _state_in(content)
    if not state:
        shown = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(f"{path} holds no state dict (it has: {shown or 'nothing'}): save one with "
                         f'torch.save(net.state_dict(), "{path.stem}.weights.pth")')  # fmt: skip
    return state, _classes_in(content)


def _classes_in(content: Any, depth: int = 0) -> tuple[str, ...]:
    """Names of classes as training scripts keep them: a list, {name: number} or {number: name}; also in what holds
    settings."""
    if not isinstance(content, Mapping):
        return ()
    for name in _CLASSES:
        known = content.get(name)
        if isinstance(known, Mapping):
            pairs = [(key, value) if isinstance(key, int) else (value, key) for key, value in known.items()]
            numbered = dict(pairs) if all(isinstance(number, int) for number, _ in pairs) else {}
            known = [numbered[number] for number in sorted(numbered)]
        if isinstance(known, list | tuple) and known and all(isinstance(one, str) for one in known):
            return tuple(known)
    inner = [content[name] for name in _SETTINGS if name in content] if depth < 2 else []
    return next((found for one in inner if (found := _classes_in(one, depth + 1))), ())


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no whole .safetensors file ({error})") from error


class _Shell:
    """What stands for an object of an unknown class: it takes the place, keeps its fields, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Shell:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.fields: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.fields = state

    def __setitem__(self, *_: Any) -> None:
        """Members of an unknown mapping are dropped."""

    def append(self, *_: Any) -> None:
        """So are those of an unknown list."""

    extend = append

    @property
    def is_module(self) -> bool:
        """Whether it was an `nn.Module`."""
        return isinstance(getattr(self, "fields", None), Mapping) and "_modules" in self.fields


def _unpickled(path: Path) -> Any:
    """What `torch.save` wrote, read with ``weights_only=True``; unknown classes become shells."""
    with path.open("rb") as file:
        if file.read(2) == b"PK" and (claimed := _claimed_bytes(path)) > path.stat().st_size:
            raise InputError(f"{path} claims {claimed:,} bytes and has {path.stat().st_size:,}: copy it again")
    unknown: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for _ in range(_MOST_UNKNOWN):
        try:
            with torch.serialization.safe_globals(unknown), warnings.catch_warnings(action="ignore"):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler's and the archive's have no class in common
            reason = str(error)
            found = re.search(r"Unsupported global: GLOBAL (\S+) was not an allowed", reason)
            if found is None or (_Shell, found[1]) in unknown:
                raise InputError(_unreadable(path, reason)) from error
            # PyTorch leaves the module away in front of a builtin's name.
            name = found[1] if "." in found[1] else f"builtins.{found[1]}"
            unknown.append((_Shell, name))
    raise InputError(f"{path} holds objects of more than {_MOST_UNKNOWN} unknown classes: save its state dict alone")


def _claimed_bytes(path: Path) -> int:
    """What the members of an archive take when they are read. PyTorch stores them as they are, each once."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, OverflowError, struct.error):
        return 0  # PyTorch will say what is wrong


def _unreadable(path: Path, reason: str) -> str:
    if "persistent_load of storage" in reason:  # older files hold a module's source in front of it
        return _whole_module(path, None)
    if "TorchScript" in reason:
        convert = f'torch.save(torch.jit.load("{path}").state_dict(), "{path.stem}.weights.pth")'
        return f"{path} is a TorchScript archive, which is code: take its weights out with {convert}"
    if blocked := re.search(r"GLOBAL (\S+) whose module", reason):
        return f"{path} would call {blocked[1]}: it is no file of weights, and was not loaded"
    size = path.stat().st_size
    if not size:
        return f"{path} is empty: copy it again"
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"PK", b"\x80\x02") or "EOF" in reason:  # an archive, or a pickle, as torch.save writes them
        return f"{path} is damaged or cut off after {size:,} bytes: copy or download it again"
    return f"{path} cannot be read as weights, it begins with {start!r}: name a file that torch.save wrote"


def _whole_module(path: Path, content: Any) -> str:
    if content is None:
        inner = '  # or a part of it, such as ["model"]'
    else:
        within = content.items() if isinstance(content, Mapping) else ()
        inner = next((f'["{name}"]' for name, part in within if isinstance(part, _Shell) and part.is_module), "")
    out = path.with_name(f"{path.stem}.weights.pth")
    return (
        f"{path} is a whole module, pickled: loading it would run code, so it was not loaded. If you trust it, these "
        "two lines of Python, run where its class can be imported, save its weights alone; then name these:\n"
        f'net = torch.load("{path}", weights_only=False){inner}\n'
        f'torch.save(net.state_dict(), "{out}")'
    )


def _parts(content: Any) -> list[Any]:
    return list(content.values()) if isinstance(content, Mapping) else [content]


def _state_in(content: Any, depth: int = 0) -> dict[str, Tensor]:
    """The state dict in what a file holds: the content itself, or under one of the usual names."""
    if not isinstance(content, Mapping) or depth > 3:
        return {}
    tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) > len(content) / 2:
        return tensors
    named = [content[name] for name in _WRAPPERS if name in content]
    return next((found for one in named if (found := _state_in(one, depth + 1))), {})


def fitted(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` under the names of `net`: prefixes of wrappers (``module.``, ``_orig_mod.``, Lightning's ``model.``) are
    taken off, or put on, as long as more names fit. What lies outside the wrapper (a loss, a metric) is left out.
    """
    own, best = net.state_dict().keys(), dict(state)
    for _ in range(_MOST_WRAPPERS):
        candidates = [_unwrapped(best, prefix, own) for prefix in _prefixes(best)]
        candidates += [{prefix + name: value for name, value in best.items()} for prefix in _prefixes(own)]
        better = max(candidates, key=lambda names: len(names.keys() & own), default=best)
        if len(better.keys() & own) <= len(best.keys() & own):
            break
        best = better
    return {name: value for name, value in best.items() if name in own or name.rpartition(".")[2] not in _COUNTERS}


def _prefixes(names: Iterable[str]) -> list[str]:
    """All that names begin with, up to as many words as wrappers are stacked."""
    words = [name.split(".")[:-1][:_MOST_WRAPPERS] for name in names]
    return sorted({".".join(some[:count]) + "." for some in words for count in range(1, len(some) + 1)})


def _unwrapped(state: Mapping[str, Tensor], prefix: str, own: Collection[str]) -> dict[str, Tensor]:
    """Without `prefix`; what has none stays only where the net has such a name."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix) or name in own}


def misfits(net: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names that `state` lacks, names that `net` lacks, and names whose shapes differ."""
    own = net.state_dict()
    missing = [name for name in own if name not in state and name.rpartition(".")[2] not in _COUNTERS]
    return (
        missing,
        [name for name in state if name not in own],
        [name for name in own if name in state and own[name].shape != state[name].shape],
    )


def fill(net: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load `state`; `origin` is where it came from. `InputError` when names or shapes are another net's."""
    missing, unexpected, shapes = misfits(net, state)
    if missing or unexpected or shapes:
        raise InputError(
            f"{origin}: its weights are of another net: {_listed(net, state, missing, unexpected, shapes)}"
        )
    own = net.state_dict()
    net.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})


def _listed(
    net: nn.Module,
    state: Mapping[str, Tensor],
    missing: Sequence[str],
    unexpected: Sequence[str],
    shapes: Sequence[str],
) -> str:
    """What does not fit, with the closest names."""
    own, parts = net.state_dict(), []
    if missing:
        close = {name: closest(name, unexpected, cutoff=0.5) for name in missing[:_SHOWN]}
        parts.append(f"{len(missing)} missing ({_some(missing, lambda name: _hint(close[name], 'the file has'))})")
    if unexpected:
        near = {name: closest(name, missing, cutoff=0.5) for name in unexpected[:_SHOWN]}
        parts.append(
            f"{len(unexpected)} not of the net ({_some(unexpected, lambda name: _hint(near[name], 'it has'))})"
        )
    if shapes:
        sizes = {name: (tuple(state[name].shape), tuple(own[name].shape)) for name in shapes}
        listed = _some(shapes, lambda name: f" {sizes[name][0]} in the file, {sizes[name][1]} in the net")
        parts.append(f"{len(shapes)} of other shapes ({listed})")
    return "; ".join(parts)


def _some(names: Sequence[str], about: Callable[[str], str]) -> str:
    shown = [f"{name}{about(name)}" for name in names[:_SHOWN]]
    return ", ".join([*shown, *(["..."] if len(names) > _SHOWN else [])])


def _hint(close: Sequence[str], who: str) -> str:
    return f", {who} {close[0]}" if close else ""


_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_SHAPING = ("size", "dtype", "fill_value")
_OWN_BYTES = 1 << 14
"""What a tensor takes besides its numbers, with the module around it."""
_MOST_TENSORS = 20_000
"""The largest published nets have a quarter of them."""


class Bounded(TorchFunctionMode):
    """While open, tensors made of sizes alone, as weights are, take no more than `most_bytes` in all.

    `InputError` with `reason` before the memory is allocated. Building on the device "meta" would allocate none,
    but some nets find their sizes by calculating with tensors, which have no numbers there.
    """

    def __init__(self, most_bytes: int, reason: str) -> None:
        super().__init__()
        self._left, self._tensors_left, self._reason = most_bytes, _MOST_TENSORS, reason

    def __torch_function__(
        self, func: Callable, types: tuple[type, ...], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            shaping = {name: value for name, value in kwargs.items() if name in _SHAPING}
            try:
                self._left -= _OWN_BYTES + func(*args, **shaping, device="meta").nbytes
            except (RuntimeError, OverflowError, TypeError):  # more numbers than can be counted
                self._left = -1
            self._tensors_left -= 1
            if min(self._left, self._tensors_left) < 0:
                raise InputError(self._reason)
        return func(*args, **kwargs)


def within_limits(what: object) -> Bounded:
    """While open, what is built has a size that a machine may have; `what` names it in the message otherwise."""
    most = limit("NET_BYTES", 16_000_000_000)
    return Bounded(
        most,
        f"this net would have more than {most / 1e9:g} GB of weights, or more than {_MOST_TENSORS:,} of them: name "
        f"smaller sizes than {what}, or set SOLUTION_MAX_NET_BYTES to a larger number",
    )


def built(settings: ModelSettings, num_classes: int) -> nn.Module:
    """A fresh net for `num_classes`. `InputError` before it takes more memory than a net may."""
    with within_limits(settings):
        return settings.build(num_classes)
