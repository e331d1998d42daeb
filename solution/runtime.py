"""Seed, threads, device, folders and safe writing: what a process needs before it computes anything."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solution.contracts import InputError
from solution.temporaries import file_beside

ROOT = Path(__file__).resolve().parent.parent


_QUIET = {"DO_NOT_TRACK": "true", "HF_HUB_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
          "NO_ALBUMENTATIONS_UPDATE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}  # fmt: skip


def turn_off_telemetry() -> None:
    """Libraries that this process imports from now on report nothing over the network, and look for no newer version.

    OpenVINO and NNCF report through a package that has no switch for it: for this process it is not there. What the
    user's own environment sets for the others is left as it is.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    absent: Any = None
    sys.modules.setdefault("openvino_telemetry", absent)  # an import of it fails, as where it is not installed


MOST_THREADS = 1024


def set_threads(count: int | None = None) -> int:
    """Set PyTorch's threads: `count`, else SOLUTION_THREADS, else 1. Returns the number.

    One thread per process is the default because OpenMP threads that outnumber free cores spin: small operations
    then run many times slower on two threads than on one.
    """
    import torch

    count = count or threads_wanted()
    torch.set_num_threads(count)
    return count


def threads_wanted() -> int:
    """SOLUTION_THREADS, else 1. `InputError` for what is no number of threads."""
    text = os.environ.get("SOLUTION_THREADS", "1")
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise InputError(f"SOLUTION_THREADS must be a whole number from 1 to {MOST_THREADS}, got {text!r}")
    return int(text)


def limit(name: str, usual: int) -> int:
    """A limit on what is read, which SOLUTION_MAX_<name> in the environment raises."""
    text = os.environ.get(f"SOLUTION_MAX_{name}", str(usual))
    if not text.isdecimal():
        raise InputError(f"SOLUTION_MAX_{name} must be a whole number, got {text!r}")
    return int(text)


def is_main_process() -> bool:
    """Whether this process prints and writes: the only one, or the first of those that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """How many processes share this command: one, unless `accelerate launch` or `torchrun` started it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(name: str = "auto") -> str:
    """The device called `name`; "auto" takes CUDA when there is one, else the CPU."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"there is no device {name!r} here ({error}); use cpu or auto") from error
    return name


def input_folder() -> Path:
    """Where data sets lie: `input` of this checkout, or of the current folder where the package is installed."""
    return ROOT / "input" if (ROOT / "input").is_dir() else Path("input")


def data_folder() -> Path | None:
    """Where tests and benchmarks find real images: SOLUTION_DATA, else ../shared/data when it is there."""
    path = Path(os.environ.get("SOLUTION_DATA", ROOT.parent / "shared" / "data"))
    return path if path.is_dir() else None


def cache_folder() -> Path:
    """Where decoded images, their views and teachers' answers are kept, all safe to delete.

    SOLUTION_CACHE, else ~/.cache/featherweight.
    """
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("SOLUTION_CACHE", Path(home) / "featherweight"))


_INSTRUCTIONS = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "avx512f": "AVX-512",
                 "avx2": "AVX2", "i8mm": "I8MM", "asimddp": "DOTPROD"}  # fmt: skip
"""{flag of the processor: what its instructions are called}, those first that make int8 fastest."""
_BFLOAT16 = {"amx_bf16": "AMX BF16", "avx512_bf16": "AVX-512 BF16", "bf16": "BF16"}


def instructions() -> tuple[str, ...]:
    """What this processor is known to have for vectors, int8 and bfloat16."""
    flags = _flags(_about_processor())
    return tuple(name for flag, name in {**_INSTRUCTIONS, **_BFLOAT16}.items() if flag in flags)


def processor() -> str:
    """The processor's name."""
    return _about_processor().get("model name") or platform.machine()


def hardware(device: str = "cpu") -> str:
    """One line: processor, what makes its int8 fast or slow, cores, threads used, and the GPU where `device` is one."""
    import torch

    int8 = next((f", {name}" for name in instructions() if name in _INSTRUCTIONS.values()), "")
    gpu = f", {torch.cuda.get_device_name()}" if device != "cpu" else ""
    return f"{processor()}{int8}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s){gpu}"


def imitates_bf16() -> bool:
    """Whether this processor is known to have no instructions for bfloat16, so that fp32 is many times as fast."""
    flags = _flags(_about_processor())
    return bool(flags) and not flags & _BFLOAT16.keys()


def _flags(about: dict[str, str]) -> set[str]:
    return set((about.get("flags") or about.get("Features", "")).split())


def _about_processor() -> dict[str, str]:
    """What Linux reports of the last processor, where there is Linux."""
    with contextlib.suppress(OSError):
        pairs = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}
    return {}


@contextlib.contextmanager
def needed(what: str, extra: str = "runtimes") -> Iterator[None]:
    """Imports inside that fail become an `InputError` which names the extra to install for `what`."""
    try:
        yield
    except ImportError as error:
        raise InputError(f'{what} needs {error.name}, which is not here: pip install -e ".[{extra}]"') from error


def commit() -> str:
    """The short commit of this checkout, with "+" when the tree is changed, or "" outside git."""
    if not (ROOT / ".git").exists():  # installed: another project's checkout may lie around it
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return ""


def check_readable(path: Path, what: str = "file") -> None:
    """`InputError` unless `path` is a file; `what`: the kind that it should be."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a {what}")
    if not path.is_file():
        raise InputError(f"there is no {what} {path}")


def check_writable(path: Path) -> None:
    """`InputError` when no file can be written at `path`, a check before long work that changes nothing."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: name a file to write")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        fine = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        reason = "" if fine else f"nothing can be made in {nearest}"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise InputError(f"{path} cannot be written ({reason}): name another place")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it when the block ends well and removed when it does not.

    `InputError` when nothing can be written there, also when the disk is full in the middle.
    """
    check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_beside(path) as temporary:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except InputError:
        raise
    except Exception as error:
        if reason := no_room(error):
            raise InputError(f"{path} cannot be written ({reason}): make room, or name another place") from error
        if isinstance(error, OSError) and error.filename is not None and Path(error.filename).parent == path.parent:
            raise InputError(f"{path} cannot be written ({error.strerror}): name another place") from error
        raise


_NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your share of the disk is full",
            errno.EFBIG: "the file is larger than is allowed"}  # fmt: skip


def reserve(number: int, num_bytes: int) -> None:
    """Take room for so many bytes of file `number` now, or `OSError`: a mapped file without room ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, 0, num_bytes)
    else:
        os.ftruncate(number, num_bytes)


def no_room(error: BaseException) -> str:
    """What is full, when `error` comes from a full disk, else "". Libraries hide the number of the error in words."""
    number = getattr(error, "errno", None) or next(
        (one for one in _NO_ROOM if os.strerror(one) in str(error) or f"os error {one})" in str(error)), None
    )
    if number is None and "No usable temporary directory" in str(error):  # Python's own words
        return "no folder takes temporary files, perhaps for want of room"
    return "" if number is None else _NO_ROOM.get(number, "")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
