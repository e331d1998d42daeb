"""Foreign files are read and run once in a child process first, so that none can take this one down.

python -m solution.formats.child KIND PATH      one line of JSON; no PyTorch is imported
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from solution.contracts import InputError
from solution.runtime import ROOT

SECONDS = 300
_MOST_MEMORY = 16 * 2**30
_SOUND: dict[tuple[str, str], Any] = {}
"""{(kind, hash of the content): what the child made of it}, of this process."""


def in_child(kind: str, path: Path) -> Any:
    """What the child of this `kind` (see `main`) makes of the file. `InputError` when it fails or dies of it."""
    key = kind, hashlib.sha256(path.read_bytes()).hexdigest()
    if key not in _SOUND:
        _SOUND[key] = _in_child(kind, path)
    return _SOUND[key]


def _in_child(kind: str, path: Path) -> Any:
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "solution.formats.child", kind, str(path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=SECONDS, env=env, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path} was not read within {SECONDS} seconds: it is damaged, or far too large") from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise InputError(f"{path} is damaged: its interpreter died of it ({name}); copy or export it again")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last = next(reversed(done.stderr.split("\n")[:-1]), "no word")
        raise InputError(f"{path} cannot be read ({last}): copy or export it again") from error
    if "error" in found:
        raise InputError(found["error"])
    return found


def main(kind: str, path: Path) -> dict[str, Any]:
    """kind: "tflite" describes a .tflite file, "litert" and "micro" run it once, too, "executorch" a .pte file."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        if kind == "executorch":
            from solution.formats.executorch_runtime import described
        else:
            from solution.formats.litert_runtime import described
        return described(kind, path)
    except InputError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))), flush=True)
    os._exit(0)  # what a damaged file left behind is not torn down
