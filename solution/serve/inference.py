"""Nets that classify one photo at a time: classes, probabilities, milliseconds."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from solution.data.views import as_batch
from solution.evaluate.classify import prepared, softmax
from solution.evaluate.cost import macs
from solution.export import files
from solution.export.files import Model
from solution.export.runtimes import form_for, is_checkpoint, open_in, own_runtime
from solution.formats.exported import Exported

MOST_PIXELS = 25_000_000
"""Of a photo as it is decoded, which takes a dozen bytes a pixel; a large JPEG is decoded at a fraction of its size."""
_SECONDS, _MOST_ROUNDS, _CALLS = 0.8, 25, 3
"""How long all nets together are timed for one photo, in how many turns at most, and the calls of one turn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Net:
    """A file of ours, opened.

    role       what it is called on the page: "Before", "After", or its file's name
    file       the file as it was named; `num_bytes` are its own, not those of a form made for a runtime
    macs       of one image, competition's count; None for an exported file, whose graph is not counted
    """

    role: str
    file: Path
    exported: Exported
    num_bytes: int
    macs: int | None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """{class: probability} of one photo, the likeliest first, and the time of the net's quickest call."""

    classes: dict[str, float]
    ms: float

    @property
    def best(self) -> str:
        """The likeliest class."""
        return next(iter(self.classes))


def open_nets(paths: Sequence[Model], runtime: str | None, folder: Path) -> tuple[Net, ...]:
    """The nets, each in `runtime` or its file's own; forms that must be made for it go into `folder`.

    Two are called Before and After. `InputError` for what is no file of ours or does not run there.
    """
    roles = ("Before", "After") if len(paths) == 2 else tuple(Path(str(path)).name for path in paths)
    return tuple(
        _opened(role, path, runtime or own_runtime(path), folder / str(index))
        for index, (role, path) in enumerate(zip(roles, paths, strict=True))
    )


def _opened(role: str, model: Model, runtime: str, folder: Path) -> Net:
    exported, file = open_in(form_for(model, runtime, folder), runtime), Path(str(model))
    if not is_checkpoint(model):
        return Net(role=role, file=file, exported=exported, num_bytes=exported.num_bytes, macs=None)
    net, header = files.load(model)
    example = torch.zeros(1, len(header.mean), header.size, header.size)
    return Net(
        role=role, file=file, exported=exported, num_bytes=files.listing(model).num_bytes, macs=macs(net, example)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Nets that share the processor, so that they classify one photo at a time: else no time would be true.

    quickest_ms   of all calls so far, per net: what else the machine does only ever slows, and photos differ in nothing
                  that takes time
    """

    nets: tuple[Net, ...]
    lock: threading.Lock = field(default_factory=threading.Lock)
    quickest_ms: dict[Net, float] = field(default_factory=dict)

    def predict(self, photo: bytes, name: str) -> list[Prediction]:
        """One prediction per net; they are timed in turns after one warm-up. Raises `UnreadableImage`."""
        with self.lock:
            inputs = [_input(net.exported, photo, name) for net in self.nets]
            logits = [net.exported.run(images) for net, images in zip(self.nets, inputs, strict=True)]
            self._time(inputs)
        return [
            Prediction(classes=_ranked(net.exported.metadata.labels, own), ms=self.quickest_ms[net])
            for net, own in zip(self.nets, logits, strict=True)
        ]

    def _time(self, inputs: Sequence[np.ndarray]) -> None:
        end = time.perf_counter() + _SECONDS
        for _ in range(_MOST_ROUNDS):
            for net, images in zip(self.nets, inputs, strict=True):
                times = [_call_ms(net.exported, images) for _ in range(_CALLS)]
                self.quickest_ms[net] = min(self.quickest_ms.get(net, math.inf), *times)
            if time.perf_counter() >= end:
                return


def _call_ms(exported: Exported, images: np.ndarray) -> float:
    start = time.perf_counter()
    exported.run(images)
    return 1e3 * (time.perf_counter() - start)


def _input(exported: Exported, photo: bytes, name: str) -> np.ndarray:
    """(1, 3, size, size) float32, normalized."""
    metadata = exported.metadata
    images = as_batch(prepared(photo, name, metadata, MOST_PIXELS)[None], (metadata.mean, metadata.std))
    return np.ascontiguousarray(images.numpy())


def _ranked(classes: tuple[str, ...], logits: np.ndarray) -> dict[str, float]:
    shares = softmax(torch.from_numpy(np.array(logits, dtype=np.float32)))[0].tolist()
    return dict(sorted(zip(classes, shares, strict=True), key=lambda pair: -pair[1]))
