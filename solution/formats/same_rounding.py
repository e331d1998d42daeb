"""Weights of a .tflite graph of integers for which interpreters give the same integers.

A layer's sum becomes its output by a factor M, one for each channel. LiteRT's quick kernels round the exact product.
The reference kernels, which microcontrollers run, first round sum * M * 2^n to an integer, then that * 2^-n: where the
product lies less than 2^-(n+1) below a half they come out one higher, and one of a thousand such steps in the first
layers moves most logits.

With M = 2^-n / (1 + (1 + e) 2^-n) the halves k + 1/2 lie at sums (k + 1/2) 2^n + k + 1/2 + (k + 1/2) e. No integer
stands less than 1/2 + 2^-(n+1) below such a sum while 2^-(n+1) < (k + 1/2) e < 1/2, so both round alike, but where k is
small and n is, too. Weights lose half a bit on average. What they lose by rounding is taken off the bias for the mean
image (bias correction, Nagel et al., 2019, arXiv:1906.04721).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from solution.formats.tflite import WEIGHTED, array_of, kind_of, schema

_E = 0.0019
"""Below 1 / 511: k is at most 255."""
_SHIFTS = (2, 20)
"""Other factors stay as they are."""
_MOST, _MOST_SUM = 127, 2**31 - 1
_LEAST = 1e-12
"""The step of weights that are all 0."""


def round_alike(integers: Any, floats: Any, means: Mapping[str, np.ndarray]) -> None:
    """Change weights, their steps and biases of `integers`, a ``ModelT``, in place.

    floats  the graph that it was made of
    means   {tensor: (C,) its mean over calibration images and pixels}
    """
    own = integers.subgraphs[0]
    whole = {tensor.name: array_of(floats, tensor) for tensor in floats.subgraphs[0].tensors}
    for item in own.operators:
        kind = kind_of(integers, item)
        if kind not in WEIGHTED[:3] or len(item.inputs) < 3 or item.inputs[2] < 0:
            continue
        image, weight, bias = (own.tensors[index] for index in item.inputs[:3])
        wanted, mean = whole.get(weight.name), means.get((image.name or b"").decode("utf-8", "replace"))
        old = array_of(integers, bias)
        if wanted is None or mean is None or old is None or bias.type != schema().TensorType.INT32:
            continue
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        given, gives = image.quantization.scale[0], own.tensors[item.outputs[0]].quantization.scale[0]
        wanted_sums = old * np.asarray(bias.quantization.scale, np.float64)
        plain = whole.get(bias.name)
        if np.abs(old.astype(np.float64)).max() >= _MOST_SUM - 1 and plain is not None:
            wanted_sums = plain.astype(np.float64)  # it did not fit into steps as fine as those of the sums
        scales = _scales(np.asarray(weight.quantization.scale, np.float32), wanted, axis, float(given) / float(gives))
        if len(scales) == len(wanted_sums):
            scales = np.maximum(scales, (np.abs(wanted_sums) / float(given) / 2**30).astype(np.float32))
        step = scales.reshape([-1 if place == axis else 1 for place in range(wanted.ndim)]).astype(np.float64)
        rounded = np.clip(np.round(wanted / step), -_MOST, _MOST)
        sums = wanted_sums + _response(wanted - rounded * step, mean, axis)
        weight.quantization.scale = scales.tolist()
        bias.quantization.scale = (np.float32(given) * scales).tolist()
        _put(integers, weight, rounded.astype(np.int8))
        steps = np.round(sums / (float(given) * scales.astype(np.float64)))
        _put(integers, bias, np.clip(steps, -_MOST_SUM, _MOST_SUM).astype("<i4"))


def _scales(old: np.ndarray, weight: np.ndarray, axis: int, ratio: float) -> np.ndarray:
    """(O,) or (1,) float32, the steps of a weight; `ratio` is that of the steps of input and output."""
    rest = tuple(place for place in range(weight.ndim) if place != axis or len(old) == 1)
    least = np.maximum(np.abs(weight).max(rest), _LEAST).reshape(-1) / _MOST * ratio
    shifts = np.floor(-np.log2(least))
    shifts -= _factor(shifts) < least
    fits = (shifts >= _SHIFTS[0]) & (shifts <= _SHIFTS[1])
    return np.where(fits, _factor(shifts) / ratio, np.maximum(old, _LEAST)).astype(np.float32)


def _factor(shifts: np.ndarray) -> np.ndarray:
    return 2.0**-shifts / (1 + (1 + _E) * 2.0**-shifts)


def _response(weight: np.ndarray, mean: np.ndarray, axis: int) -> np.ndarray:
    """(O,) what a layer of this weight gives where every pixel is `mean`.

    weight  (O, H, W, I) or (O, I), outputs in the first axis; (1, H, W, O) of a depthwise one, in the last
    """
    if axis == 3:
        return weight.sum((0, 1, 2)) * np.repeat(mean, weight.shape[3] // len(mean))
    groups = max(len(mean) // weight.shape[-1], 1)
    flat = weight.reshape(groups, len(weight) // groups, -1, weight.shape[-1]).sum(2)  # (groups, O / groups, I)
    return np.einsum("goi,gi->go", flat, mean.reshape(groups, -1)).ravel()


def _put(model: Any, tensor: Any, values: np.ndarray) -> None:
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
