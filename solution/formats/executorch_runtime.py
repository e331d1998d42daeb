"""What runs a .pte file: ExecuTorch, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from solution.contracts import InputError
from solution.formats.litert_runtime import quiet
from solution.runtime import needed

EXTRA = "executorch"
_FORWARD = "forward"


def described(kind: str, path: Path) -> dict[str, Any]:
    """What `solution.formats.child` prints: methods, shapes, texts; the file has run once."""
    import torch

    program, forward = loaded(path)
    about = forward.metadata
    shapes = [
        [list(one(index).sizes()) for index in range(count)]
        for one, count in (
            (about.input_tensor_meta, about.num_inputs()),
            (about.output_tensor_meta, about.num_outputs()),
        )
    ]
    texts = {}
    for name in sorted(program.method_names - {_FORWARD}):
        answer = program.load_method(name).execute([])
        if len(answer) == 1 and isinstance(answer[0], str):
            texts[name] = answer[0]
    try:
        forward.execute([torch.zeros(shape) for shape in shapes[0]])
    except RuntimeError as error:
        raise InputError(f"{path} cannot be run by ExecuTorch ({error}): export it again") from error
    return {"shapes": shapes, "texts": texts, "methods": sorted(program.method_names)}


def loaded(path: Path) -> tuple[Any, Any]:
    """The program and its forward. `InputError` when it cannot be loaded."""
    with needed("running a .pte file", EXTRA):
        from executorch.runtime import Runtime
    try:
        with quiet():  # it prints what it finds out about the processor
            program = Runtime.get().load_program(path)
            if _FORWARD not in program.method_names:
                raise InputError(f"{path} has no method forward: it is a file for something else")
            return program, program.load_method(_FORWARD)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as a .pte file ({error}): copy or export it again") from error


def ran(forward: Any, images: np.ndarray) -> np.ndarray:
    """(B, C, H, W) float32 to the outputs of all, run one image at a time."""
    import torch

    outputs = [forward.execute([torch.from_numpy(image[None].copy())])[0].numpy().copy() for image in images]
    return np.concatenate(outputs)
