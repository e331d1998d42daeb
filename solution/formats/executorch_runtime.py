"""What runs a .pte file: ExecuTorch, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from solution.contracts import InputError
from solution.formats.litert_runtime import quiet
from solution.runtime import needed

EXTRA = "executorch"
_FORWARD = "forward"
_KINDS = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
"""By the numbers that the format gives them; bool comes much later."""


def library() -> Any:
    """ExecuTorch's bindings: its public module imports the compiler besides, which takes as long as ten files."""
    with needed("running a .pte file", EXTRA):
        import torch  # noqa: F401 - holds libraries that they want
        from executorch.extension.pybindings import _C
    return _C


def described(kind: str, path: Path) -> dict[str, Any]:
    """What `solution.formats.child` prints: methods, shapes, texts; the file has run once."""
    import torch

    program, forward = loaded(path)
    about = forward.method_meta()
    shapes = [
        [list(one(index).sizes()) for index in range(count)]
        for one, count in (
            (about.input_tensor_meta, about.num_inputs()),
            (about.output_tensor_meta, about.num_outputs()),
        )
    ]
    numbers = [about.input_tensor_meta(index).dtype() for index in range(len(shapes[0]))]
    kinds = [getattr(torch, _KINDS[number] if number < len(_KINDS) else "bool") for number in numbers]
    methods, texts = methods_of(program), {}
    for name in methods:
        answer = [] if name == _FORWARD else program.load_method(name).call([])
        if len(answer) == 1 and isinstance(answer[0], str):
            texts[name] = answer[0]
    try:
        forward.call([torch.zeros(shape, dtype=kind) for shape, kind in zip(shapes[0], kinds, strict=True)])
    except RuntimeError as error:
        raise InputError(f"{path} cannot be run by ExecuTorch ({error}): export it again") from error
    return {"shapes": shapes, "texts": texts, "methods": methods, "floating": set(kinds) == {torch.float32}}


def loaded(path: Path) -> tuple[Any, Any]:
    """The program and its forward. `InputError` when it cannot be loaded."""
    bindings = library()
    try:
        with quiet():  # it prints what it finds out about the processor
            checks = bindings.Verification.InternalConsistency
            program = bindings._load_program(str(path), program_verification=checks)
            if _FORWARD not in methods_of(program):
                raise InputError(f"{path} has no method forward: it is a file for something else")
            return program, program.load_method(_FORWARD)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as a .pte file ({error}): copy or export it again") from error


def methods_of(program: Any) -> list[str]:
    """Their names, sorted."""
    return sorted(program.get_method_name(number) for number in range(program.num_methods()))
