"""What runs a .tflite file: LiteRT, or the interpreter for microcontrollers. No PyTorch is imported here."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from solution.contracts import InputError
from solution.formats.tflite import EXTRA, TYPES, Graph, clean_message, graph_of, parsed
from solution.runtime import needed

Run = Callable[[np.ndarray], np.ndarray]


def described(kind: str, path: Path) -> dict[str, Any]:
    """What `solution.formats.child` prints: the graph, and what a first run tells, for "litert" and "micro"."""
    data = path.read_bytes()
    graph = graph_of(parsed(data, path), path)
    if kind == "litert":
        interpreter = litert(data, 1, path)
        try:
            for place in (graph.places[index] for index in graph.inputs):
                interpreter.set_tensor(graph.places.index(place), np.zeros(place.shape, TYPES[place.type]))
            interpreter.invoke()
        except (ValueError, RuntimeError, KeyError, MemoryError) as error:
            raise InputError(f"{path} cannot be run by LiteRT ({clean_message(error)}): export it again") from error
    return {"graph": dataclasses.asdict(graph)}


def litert(data: bytes, threads: int, path: object) -> Any:
    """LiteRT's interpreter, its tensors in place. `InputError` for what it does not take."""
    with needed("running a .tflite file", EXTRA):
        from ai_edge_litert.interpreter import Interpreter
    try:
        with quiet():
            interpreter = Interpreter(model_content=data, num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be run by LiteRT ({clean_message(error)}): export it again") from error
    return interpreter


def running(interpreter: Any, graph: Graph) -> Run:
    """Images (B, C, H, W) float32, normalized, to the outputs of all, run one at a time; integers are scaled."""
    (given,), (gives,) = graph.inputs, graph.outputs

    def run(images: np.ndarray) -> np.ndarray:
        outputs = []
        for image in images:
            interpreter.set_tensor(given, as_input(image, graph))
            interpreter.invoke()
            outputs.append(as_output(interpreter.get_tensor(gives), graph))
        return np.concatenate(outputs)

    return run


def as_input(image: np.ndarray, graph: Graph) -> np.ndarray:
    """(C, H, W) float32 as the graph's input takes it: (1, H, W, C), rounded to its steps where it is of integers."""
    place = graph.places[graph.inputs[0]]
    values = np.ascontiguousarray(image.transpose(1, 2, 0))[None]
    if place.scale is None or place.type == "FLOAT32":
        return values.astype(np.float32, copy=False)
    limits = np.iinfo(np.dtype(place.type.lower()))
    steps = np.round(values / np.float32(place.scale)) + place.zero_point
    return np.clip(steps, limits.min, limits.max).astype(limits.dtype)


def as_output(values: np.ndarray, graph: Graph) -> np.ndarray:
    """What the graph gave, as float32."""
    place = graph.places[graph.outputs[0]]
    if place.scale is None or place.type == "FLOAT32":
        return np.array(values, np.float32)
    return (values.astype(np.float32) - place.zero_point) * np.float32(place.scale)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Converter, quantizer and interpreters report on both outputs, some of it from C++: descriptors are turned off."""
    logging.disable(logging.WARNING)
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    sys.stdout.flush()
    try:
        with Path(os.devnull).open("w") as nowhere, warnings.catch_warnings():
            for descriptor in kept:
                os.dup2(nowhere.fileno(), descriptor)
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        logging.disable(logging.NOTSET)
