"""Ranges of what flows through a .tflite graph, measured on images, for integers with one step per tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from solution.formats.litert_runtime import as_input
from solution.formats.tflite import Graph

_LEVELS = 255
_SAMPLES = 1024
"""Numbers of each tensor that are kept of each image, evenly spread; extremes are taken of all."""
_BINS = 2048
_SHARES = np.linspace(1.0, 0.3, 36)
"""Shares of the extremes that are tried as a range."""
_BEYOND = 1e30
"""Padding before a maximum holds -inf; it is no value that integers must hold."""


@dataclass(kw_only=True)
class Ranges:
    """{tensor: least, greatest number, samples of each image, sum of the images' means of each channel}."""

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[np.ndarray]] = field(default_factory=dict)
    sums: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def watched(cls, data: bytes, graph: Graph, images: Iterable[np.ndarray]) -> Ranges:
        """Run the float file of `graph` on images, each (C, H, W), and note what flows."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=data, num_threads=1, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        flowing = [(index, place.name) for index, place in enumerate(graph.places)
                   if not place.constant and place.type == "FLOAT32"]  # fmt: skip
        found = cls()
        for image in images:
            interpreter.set_tensor(graph.inputs[0], as_input(image[None], graph))
            interpreter.invoke()
            for index, name in flowing:
                found._note(name, interpreter.get_tensor(index))
        return found

    def _note(self, name: str, values: np.ndarray) -> None:
        channels = np.where(np.abs(values) < _BEYOND, values, 0).reshape(-1, values.shape[-1] if values.ndim else 1)
        self.sums[name] = self.sums.get(name, 0) + channels.mean(0, dtype=np.float64)
        values = values.ravel()
        low, high = float(values.min()), float(values.max())
        if low < -_BEYOND or high > _BEYOND:
            values = values[np.abs(values) < _BEYOND]
            low, high = float(values.min()), float(values.max())
        self.low[name] = min(self.low.get(name, 0.0), low)
        self.high[name] = max(self.high.get(name, 0.0), high)
        self.samples.setdefault(name, []).append(values[:: math.ceil(len(values) / _SAMPLES)].copy())

    def means(self) -> dict[str, np.ndarray]:
        """{tensor: (C,) mean of each of the last axis}."""
        return {name: total / len(self.samples[name]) for name, total in self.sums.items()}

    def extremes(self) -> dict[str, tuple[float, float]]:
        """{tensor: range that holds all that flowed, and 0}."""
        return {name: (self.low[name], self.high[name]) for name in self.low}

    def nearest(self) -> dict[str, tuple[float, float]]:
        """{tensor: range of least mean squared rounding error}: outliers are cut where others gain more."""
        return {name: self._nearest(name) for name in self.low}

    def _nearest(self, name: str) -> tuple[float, float]:
        low, high = self.low[name], self.high[name]
        if high <= low:
            return low, high
        counts, edges = np.histogram(np.concatenate(self.samples[name]), _BINS, (low, high))
        values = (edges[:-1] + edges[1:]) / 2
        errors = []
        for share in _SHARES:
            step = share * (high - low) / _LEVELS
            first = np.round(share * low / step)
            rounded = step * np.clip(np.round(values / step), first, first + _LEVELS)
            errors.append(float((counts * (rounded - values) ** 2).sum()))
        share = float(_SHARES[int(np.argmin(errors))])
        return share * low, share * high
