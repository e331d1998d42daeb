"""A foreign file takes its reader's time, memory or life: one line says so. The package that reads it is planted."""

import subprocess
import sys

import pytest

from solution.contracts import InputError
from solution.formats import child
from solution.runtime import ROOT


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Has a child read a file of so many bytes by a package that does what the text says."""

    def run(text, num_bytes=100):
        folder = tmp_path / "planted/ai_edge_litert"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(folder.parent))
        path = tmp_path / "net.tflite"
        path.write_bytes(text.encode().ljust(num_bytes))
        return child.in_child("litert", path)

    return run


def refusal(read, *words):
    with pytest.raises(InputError) as caught:
        read(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_reader_that_computes_for_ever_is_ended(read, monkeypatch):
    monkeypatch.setenv("SOLUTION_MAX_FILE_SECONDS", "1")
    assert "within 2 seconds of processor time" in refusal(read, "while True: pass")


def test_a_reader_that_waits_for_ever_is_ended(read, monkeypatch):
    monkeypatch.setattr(child, "_STILL_S", 2)
    assert "its reader stands still" in refusal(read, "import time; time.sleep(1000)")


def test_memory_is_limited_and_the_limit_can_be_raised(read, monkeypatch):
    greedy = "import numpy; numpy.empty(3 << 29, numpy.uint8)"
    assert "SOLUTION_MAX_FILE_MEMORY" in refusal(read, greedy)
    monkeypatch.setenv("SOLUTION_MAX_FILE_MEMORY", str(1 << 32))
    assert "MemoryError" not in refusal(read, greedy)


def test_a_large_file_may_take_more(read):
    greedy = "import numpy; numpy.empty(3 << 29, numpy.uint8)"
    assert "MemoryError" in refusal(read, greedy)
    assert "MemoryError" not in refusal(read, greedy, 1 << 26)


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT"])
def test_a_reader_that_dies_is_named_with_its_signal(read, signal):
    assert f"died of it ({signal})" in refusal(read, f"import os, signal; os.kill(os.getpid(), signal.{signal})")


@pytest.mark.parametrize("kind", ["litert_runtime", "child"])
def test_what_reads_a_small_file_loads_no_pytorch(kind):
    code = f"import sys, solution.formats.{kind}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
