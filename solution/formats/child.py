"""Foreign files are read and run once in a child process first, so that none can take this one down.

python -m solution.formats.child KIND PATH SECONDS BYTES      one line of JSON; no PyTorch is imported
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from solution.contracts import InputError
from solution.runtime import ROOT, limit

SECONDS, SECONDS_A_MIB = 15, 1.0
"""Processor time for a file: of any size, and besides for each MiB. SOLUTION_MAX_FILE_SECONDS raises the first."""
MEMORY_BYTES, MEMORY_A_BYTE = 2**30, 16
"""Memory for a file: of any size, and besides for each of its bytes. SOLUTION_MAX_FILE_MEMORY raises the first."""
_STILL_S = 8.0
"""A child that uses no processor time for so long hangs."""
_SOUND: dict[tuple[str, ...], Any] = {}
"""{(kind, hashes of the content): what the child made of it}, of this process."""


def in_child(kind: str, path: Path, *partners: Path) -> Any:
    """What the child of this `kind` (see `main`) makes of the file. `InputError` when it fails or dies of it.

    partners  further files that belong to it
    """
    key, num_bytes = [kind], 0
    for file in (path, *partners):
        with file.open("rb") as stream:
            key.append(hashlib.file_digest(stream, "sha256").hexdigest())
        num_bytes += file.stat().st_size
    if tuple(key) not in _SOUND:
        _SOUND[tuple(key)] = _in_child(kind, path, num_bytes)
    return _SOUND[tuple(key)]


def _in_child(kind: str, path: Path, num_bytes: int) -> Any:
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "solution.formats.child", kind, str(path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    seconds = math.ceil(limit("FILE_SECONDS", SECONDS) + SECONDS_A_MIB * num_bytes / 2**20)
    memory = limit("FILE_MEMORY", MEMORY_BYTES) + MEMORY_A_BYTE * num_bytes
    with subprocess.Popen(
        [*command, str(seconds), str(memory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        errors="replace",
    ) as child:
        try:
            said, complained = _heard(child)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{path} is not read, its reader stands still: copy or export it again") from error
        finally:
            child.kill()
    if child.returncode == -signal.SIGXCPU:
        raise InputError(
            f"{path} was not read within {seconds} seconds of processor time: it is damaged, or far too large; allow "
            "more by SOLUTION_MAX_FILE_SECONDS"
        )
    more = f", or allow it more than {memory:,} bytes of memory by SOLUTION_MAX_FILE_MEMORY"
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise InputError(f"{path} is damaged: its interpreter died of it ({name}); copy or export it again{more}")
    try:
        found = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last = next(reversed(complained.split("\n")[:-1]), "no word")
        raise InputError(f"{path} cannot be read ({last}): copy or export it again{more}") from error
    if "error" in found:
        raise InputError(found["error"])
    return found


def _heard(child: subprocess.Popen[str]) -> tuple[str, str]:
    """What a child that ends prints, on both outputs. `TimeoutExpired` when it stands still."""
    used = -1.0
    while True:
        try:
            return child.communicate(timeout=_STILL_S)
        except subprocess.TimeoutExpired:
            now = _processor_s(child.pid)
            if now == used:
                raise
            used = now


def _processor_s(pid: int) -> float:
    with contextlib.suppress(OSError):  # Linux
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return -1.0


def main(kind: str, path: Path, seconds: int, memory: int) -> dict[str, Any]:
    """kind: "tflite" describes a .tflite file, "litert" and "micro" run it once, too, "chip" says what memory it needs,
    "executorch" is for a .pte file, "onnx" and "openvino" for theirs, which they describe alone as "onnx_tensors" and
    "openvino_tensors".
    """

    def allow(num_bytes: int = 0) -> None:
        _lower(resource.RLIMIT_CPU, math.ceil(seconds + SECONDS_A_MIB * num_bytes / 2**20))
        _lower(resource.RLIMIT_DATA, memory + MEMORY_A_BYTE * num_bytes)

    allow()
    _lower(resource.RLIMIT_CORE, 0)
    try:
        if kind == "executorch":
            from solution.formats.executorch_runtime import described
        elif kind.startswith(("onnx", "openvino")):
            from solution.formats import foreign

            return foreign.described(kind, path, allow)
        else:
            from solution.formats.litert_runtime import described
        return described(kind, path)
    except InputError as error:
        return {"error": str(error)}


def _lower(what: int, most: int) -> None:
    """Set a limit of this process, which it may still raise again."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))), flush=True)
    os._exit(0)  # what a damaged file left behind is not torn down
