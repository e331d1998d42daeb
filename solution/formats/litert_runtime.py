"""What runs a .tflite file: LiteRT, or the interpreter for microcontrollers. No PyTorch is imported here."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from solution.contracts import InputError
from solution.formats.tflite import EXTRA, TYPES, Graph, clean_message, graph_of, parsed
from solution.runtime import needed

MICRO_EXTRA = "micro"
_MOST_ARENA = 2**26
_ARRAY = re.compile(r"kModel\[\]\s*=\s*\{([^}]*)\}")

Run = Callable[[np.ndarray], np.ndarray]


def described(kind: str, path: Path) -> dict[str, Any]:
    """What `solution.formats.child` prints: the graph, and what a first run measures, for "litert" and "micro"; for
    "chip" what memory a .tflite file needs there, which is not run.
    """
    data = path.read_bytes() if kind != "micro" else array_in(path)
    graph = graph_of(parsed(data, path), path)
    if kind == "chip":
        return {"arena": arena_of(data, graph, path, runs=False)}
    if kind == "micro":
        return {"graph": dataclasses.asdict(graph), "arena": arena_of(data, graph, path)}
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


def running(interpreter: Any, graph: Graph, path: object) -> Run:
    """Images (B, C, H, W) float32, normalized, as many as the graph takes, to its outputs; integers are scaled."""
    given, gives = graph.inputs[0], graph.outputs[0]

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given, as_input(images, graph))
        try:
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:  # such as an index that the image makes too large
            raise InputError(f"{path} does not run in LiteRT ({clean_message(error)}): export it again") from error
        return as_output(interpreter.get_tensor(gives), graph)

    return run


def as_input(images: np.ndarray, graph: Graph) -> np.ndarray:
    """(B, C, H, W) float32 as the graph's input takes it: (B, H, W, C), rounded to its steps where it is of integers.

    Files of others may take (B, C, H, W).
    """
    place = graph.places[graph.inputs[0]]
    values = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if is_channels_last(place.shape) else images)
    if place.scale is None or place.type.startswith("FLOAT"):
        return values.astype(TYPES[place.type], copy=False)
    limits = np.iinfo(np.dtype(place.type.lower()))
    steps = np.round(values / np.float32(place.scale)) + place.zero_point
    return np.clip(steps, limits.min, limits.max).astype(limits.dtype)


def is_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an input of this shape takes images (B, H, W, C)."""
    return len(shape) == 4 and (shape[3] in (1, 3) or shape[1] not in (1, 3))


def as_output(values: np.ndarray, graph: Graph) -> np.ndarray:
    """What the graph gave, as float32."""
    place = graph.places[graph.outputs[0]]
    if place.scale is None or place.type.startswith("FLOAT"):
        return np.array(values, np.float32)
    return (values.astype(np.float32) - place.zero_point) * np.float32(place.scale)


def array_in(path: Path) -> bytes:
    """The .tflite file that stands as an array of bytes in C++ source of ours."""
    found = _ARRAY.search(path.read_text(encoding="utf-8", errors="replace"))
    try:
        return bytes(int(value, 16) for value in found[1].split(",") if value.strip()) if found else b""
    except ValueError as error:
        raise InputError(f"{path} holds no array of bytes that can be read ({error}): export it again") from error


def micro(data: bytes, arena: int, path: object) -> Any:
    """The interpreter for microcontrollers with an arena of so many bytes. `InputError` for what it does not take."""
    with needed("running a file for microcontrollers", MICRO_EXTRA):
        from tflite_micro.python.tflite_micro.runtime import Interpreter
    try:
        with quiet():
            return Interpreter.from_bytes(data, arena_size=arena)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} does not run in tflite-micro ({clean_message(error)}): export it again") from error


def micro_running(interpreter: Any, graph: Graph) -> Run:
    """As `running`, in the interpreter for microcontrollers."""

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.set_input(as_input(images, graph), 0)
        interpreter.invoke()
        return as_output(interpreter.get_output(0), graph)

    return run


def arena_of(data: bytes, graph: Graph, path: object, *, runs: bool = True) -> int:
    """Bytes of memory that the interpreter needs for one run: activations, and what it keeps of every operation."""
    interpreter = micro(data, _MOST_ARENA, path)
    if runs:
        place = graph.places[graph.inputs[0]]
        interpreter.set_input(np.zeros(place.shape, TYPES[place.type]), 0)
        interpreter.invoke()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)  # it prints to the standard error alone
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        captured.seek(0)
        found = re.search(rb"Arena allocation total (\d+) bytes", captured.read())
    used = -(-int(found[1]) // 16) * 16 if found else 0
    while used < _MOST_ARENA:
        try:
            micro(data, used, path)  # what it recorded must do
            return used
        except InputError:
            used += 256
    raise InputError(f"{path} needs more than {_MOST_ARENA:,} bytes of memory in tflite-micro: choose a smaller net")


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
