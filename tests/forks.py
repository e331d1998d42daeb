"""Commands in children, forked from a process that has imported everything and computed nothing.

Hundreds of them begin in no time. A process of tests cannot fork: it may have computed gradients, or hold threads.
"""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import traceback
from multiprocessing import forkserver
from pathlib import Path

import pytest

from solution.__main__ import main
from solution.runtime import ROOT

IMPORTED = ("accelerate", "albumentations", "litert_torch", "matplotlib.figure", "onnxruntime.quantization",
            "onnxscript", "optuna", "ptflops", "sklearn.metrics", "solution.api", "solution.commands.model",
            "solution.export.exporter", "solution.pipeline", "solution.report.page", "solution.search.session",
            "solution.shrink.run", "torch._dynamo", "torchvision")  # fmt: skip
"""What commands would import one after another; without a package the command that needs it says so."""
_FORKING = multiprocessing.get_context("forkserver")


def begun(words, folder, most=None):
    """A process that runs the command in `folder` and writes what it says to said.txt.

    most  bytes that a file may have. said.txt could not grow then: errors come by `child.errors`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
        _FORKING.set_forkserver_preload([*IMPORTED, __name__])
        forkserver.ensure_running()
    errors, writing = _FORKING.Pipe(duplex=False)
    child = _FORKING.Process(target=_run, args=(words, folder, most, writing))
    child.start()
    writing.close()
    child.errors = errors
    return child


def ended(child):
    """The exit code of a child; minus the signal that killed it."""
    child.join()
    return child.exitcode


def _run(words, folder, most, writing):
    code = 70
    try:
        os.chdir(folder)
        said = os.open("said.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said if most is None else writing.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        sys.argv[1:] = words
        tempfile.tempdir, os.environ["TMPDIR"] = None, str((folder / "tmp").resolve())
        os.environ["SOLUTION_CACHE"] = str(folder / "cache")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if most is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
